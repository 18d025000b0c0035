//! TLS to the ZooKeeper servers: PEM files as in `zookeeper-tls`, a client certificate, the chain checked
//! against the CA bundle and the name against the server's certificate.
//!
//! The files are read again for every connection, so that a renewed certificate needs no restart.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::Tls;

/// Reads the files and makes what a connection needs.
pub(super) fn client_config(tls: &Tls) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&tls.cert, "cert")?;
    let key_pem = read(&tls.key, "key")?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|error| invalid(&tls.key, "key", format!("holds no private key: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca, "ca")? {
        roots.add(certificate).map_err(|error| invalid(&tls.ca, "ca", error))?;
    }
    let roots = Arc::new(roots);
    let standard = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| invalid(&tls.ca, "ca", error))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| io::Error::other(format!("TLS: {error}")))?;
    let verifier = Arc::new(Verifier { standard, roots, check_name: tls.verify_hostname });
    // "dangerous" because a verifier of one's own could accept anything; this one only leaves out the
    // check of the name, and only where the operator says so.
    let config = builder.dangerous().with_custom_certificate_verifier(verifier);
    let config = config
        .with_client_auth_cert(chain, key)
        .map_err(|error| invalid(&tls.cert, "cert", format!("does not fit the key: {error}")))?;
    Ok(Arc::new(config))
}

/// A handshake error in an operator's words.
pub(super) fn explain(error: &io::Error, tls: &Tls) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match cause {
        // A bad signature: an authority of the same name, such as one that was made anew.
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            format!(
                "the server's certificate is not signed by a CA in {} (zookeeper-tls: ca)",
                tls.ca.display()
            )
        }
        Some(Error::InvalidCertificate(
            why @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
        )) => format!(
            "{why}; correct the server's certificate or the host in zookeeper-servers, or turn the check off \
             with 'verify-hostname: false' in zookeeper-tls"
        ),
        Some(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "the server's certificate has expired".to_owned(),
        Some(Error::InvalidCertificate(why)) => format!("the server's certificate is refused: {why}"),
        Some(Error::AlertReceived(alert)) => format!(
            "the server refuses the connection ({alert:?}): it may not accept the client certificate {} \
             (zookeeper-tls: cert)",
            tls.cert.display()
        ),
        Some(Error::InvalidMessage(_)) => {
            "the server does not answer with TLS; is this its plain port?".to_owned()
        }
        _ => format!("TLS: {error}"),
    }
}

fn certificates(path: &Path, key: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = read(path, key)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(invalid(path, key, "holds no certificate in PEM format"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(invalid(path, key, error)),
    }
}

fn read(path: &Path, key: &str) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot read {} (zookeeper-tls: {key}): {error}", path.display()),
        )
    })
}

fn invalid(path: &Path, key: &str, why: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{} (zookeeper-tls: {key}): {why}", path.display()))
}

/// The standard check of a server's certificate, with the check of its name optional: certificates of the
/// original's own script carry no name that could be checked.
#[derive(Debug)]
struct Verifier {
    standard: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    check_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check_name {
            return self.standard.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.standard.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.standard.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.standard.supported_verify_schemes()
    }
}
