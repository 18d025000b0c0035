//! TLS between ureq and TCP. ureq has its own, which panics when a client certificate does not fit its key,
//! and reads certificates once; this one tells what is wrong, and looks at the files for each connection, so
//! that a renewed certificate needs no restart.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodepool_threads::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use super::limits::Ended;
use crate::openstack::clouds::Tls;

/// Where distributions keep the authorities that the system trusts: Debian and Alpine, Fedora and RHEL, SUSE,
/// and OpenSSL's own name for it.
const SYSTEM_STORES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Wraps connections where the address asks for it.
#[derive(Debug)]
pub(super) struct TlsConnector {
    settings: Tls,
    known: Mutex<Option<Known>>,
}

/// A configuration, and the files that it was made of.
#[derive(Debug)]
struct Known {
    stamps: Vec<Option<Stamp>>,
    config: Arc<ClientConfig>,
}

type Stamp = (u64, u64, i64, i64);

impl TlsConnector {
    pub(super) fn new(settings: Tls) -> Self {
        Self { settings, known: Mutex::new("TLS configuration of a cloud", None) }
    }

    /// The configuration as the files have it now.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let store = self.store()?;
        let files = [store.as_ref(), self.settings.cert.as_ref(), self.settings.key.as_ref()];
        let stamps: Vec<_> = files.into_iter().flatten().map(|path| stamp(path)).collect();
        if let Some(known) = self.known.lock().as_ref().filter(|known| known.stamps == stamps) {
            return Ok(Arc::clone(&known.config));
        }
        let config = Arc::new(self.read(store.as_deref())?);
        *self.known.lock() = Some(Known { stamps, config: Arc::clone(&config) });
        Ok(config)
    }

    /// The file of authorities; `None` where nothing is checked.
    fn store(&self) -> Result<Option<PathBuf>, String> {
        if !self.settings.verify {
            return Ok(None);
        }
        if let Some(own) = &self.settings.ca {
            return Ok(Some(own.clone()));
        }
        let found = SYSTEM_STORES.iter().map(Path::new).find(|path| path.is_file());
        found.map(|path| Some(path.to_owned())).ok_or_else(|| {
            format!(
                "this system has no store of certificate authorities (looked for {}): install the package \
                 ca-certificates, or set 'cacert' in clouds.yaml",
                SYSTEM_STORES.join(", ")
            )
        })
    }

    fn read(&self, store: Option<&Path>) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let builder = match store {
            Some(store) => builder.with_root_certificates(roots(store)?),
            // "dangerous" indeed, and only where the operator says so.
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))),
        };
        let Some(cert) = &self.settings.cert else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(cert, "cert")?;
        let (path, name) = self.settings.key.as_ref().map_or((cert, "cert"), |key| (key, "key"));
        let key = PrivateKeyDer::from_pem_slice(&read(path, name)?)
            .map_err(|error| format!("{} ({name}): holds no private key: {error}", path.display()))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("{} (cert): does not fit the key: {error}", cert.display()))
    }
}

fn roots(store: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // A system's store may have some that are out of date; one is enough to go on.
    let (added, _) = roots.add_parsable_certificates(certificates(store, "cacert")?);
    if added == 0 {
        return Err(format!("{} (cacert): holds no usable certificate", store.display()));
    }
    Ok(roots)
}

fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path, key)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{} ({key}): holds no certificate in PEM format", path.display()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{} ({key}): {error}", path.display())),
    }
}

fn read(path: &Path, key: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {} ({key}): {error}", path.display()))
}

/// What changes when a file changes.
fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let unreached = |why: String| Error::from(io::Error::from(Ended::Unreached(why)));
        let config = self.config().map_err(unreached)?;
        let host = details.uri.host().unwrap_or_default();
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']'))
            .map_err(|_| unreached(format!("'{host}' is no name that a certificate could have")))?
            .to_owned();
        let mut tls =
            ClientConnection::new(config, name).map_err(|error| unreached(format!("TLS: {error}")))?;
        let mut below = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        while tls.is_handshaking() {
            tls.complete_io(&mut below).map_err(|error| self.explain(error))?;
        }
        let sizes = (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { tls, below, buffers: LazyBuffers::new(sizes.0, sizes.1) })))
    }
}

impl TlsConnector {
    /// A failed handshake in an operator's words. Nothing was asked of the server yet.
    fn explain(&self, error: io::Error) -> io::Error {
        let inner = error.get_ref();
        if inner.is_some_and(|inner| inner.is::<Ended>()) {
            return error;
        }
        let Some(cause) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return Ended::Unreached(format!("TLS: {error}")).into();
        };
        let why = match cause {
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => {
                let store = self.store().ok().flatten();
                let store = store.map_or_else(String::new, |store| format!(" in {}", store.display()));
                format!("its certificate is not signed by an authority{store}; see 'cacert' in clouds.yaml")
            }
            rustls::Error::InvalidCertificate(why) => format!("its certificate is refused: {why}"),
            rustls::Error::AlertReceived(alert) => {
                format!(
                    "it refuses the connection ({alert:?}); it may want another client certificate ('cert' in clouds.yaml)"
                )
            }
            rustls::Error::InvalidMessage(_) => {
                "it does not speak TLS there; is the address http:// ?".to_owned()
            }
            other => format!("TLS: {other}"),
        };
        Ended::Unreached(why).into()
    }
}

/// A connection with TLS.
pub(super) struct TlsTransport {
    tls: ClientConnection,
    below: TransportAdapter,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TLS over {:?}", self.below.get_ref())
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            let taken = self.tls.writer().write(rest)?;
            rest = &rest[taken..];
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.below)?;
            }
        }
        Ok(())
    }

    /// Reads also when nothing can be sent any more, as after a server has refused to hear the rest.
    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        loop {
            match self.tls.reader().read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            self.tls.read_tls(&mut self.below)?;
            self.tls
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            // Such as the answer to new keys. If it cannot be sent, the next request will tell.
            while self.tls.wants_write() {
                if self.tls.write_tls(&mut self.below).is_err() {
                    break;
                }
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.below.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Believes every certificate.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
