//! Certificates for a test: an authority, a server, a client, and the ways in which they can be wrong.
//!
//! All keys are ECDSA P-256 in PKCS#8; everything is written as PEM files, the form in which operators have it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing: the subject alternative names are `localhost` and `127.0.0.1`.
    #[default]
    None,
    /// Signed by an authority of the same name that is not the test's.
    OtherAuthority,
    /// Made out to `zookeeper.example.org` only.
    WrongName,
    /// Made out to the addresses `127.0.0.1` and `::1`, and to no name.
    AddressesOnly,
    /// Ran out years ago.
    Expired,
    /// No subject alternative names; the common name is `localhost`, as the original's script makes them.
    NoSubjectAltName,
}

/// The three files of a `zookeeper-tls` section.
#[derive(Clone, Debug)]
pub struct CertFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The authority by which the *other* side is checked: always the test's own.
    pub ca: PathBuf,
}

impl CertFiles {
    /// A rustls configuration that presents this certificate and checks the server by the authority.
    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&self.ca) {
            roots.add(certificate).expect("add the test authority");
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("read the test key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions of ring")
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&self.cert), key)
            .expect("use the test certificate");
        Arc::new(config)
    }
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
}

/// A directory with an authority and the certificates it has signed.
pub struct Pki {
    dir: PathBuf,
    authority: Issuer<'static, KeyPair>,
    /// Same name, another key: what signs [`Flaw::OtherAuthority`].
    other: Issuer<'static, KeyPair>,
    ca: PathBuf,
    client: CertFiles,
}

impl Pki {
    /// Makes the authority and the good client certificate in `dir`, which is created.
    pub fn create(dir: &Path) -> Pki {
        std::fs::create_dir_all(dir).expect("create the directory of certificates");
        let (authority, pem) = authority();
        let (other, other_pem) = self::authority();
        let ca = write(dir, "ca.pem", &pem);
        write(dir, "other-ca.pem", &other_pem);
        let client = CertFiles { cert: PathBuf::new(), key: PathBuf::new(), ca: ca.clone() };
        let mut pki = Pki { dir: dir.to_owned(), authority, other, ca, client };
        pki.client = pki.issue("client", Flaw::None);
        pki
    }

    /// The authority's certificate.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The certificate of an authority that has signed nothing good: a server checked by it must be refused.
    pub fn other_ca(&self) -> PathBuf {
        self.dir.join("other-ca.pem")
    }

    /// The good client certificate.
    pub fn client(&self) -> &CertFiles {
        &self.client
    }

    /// Makes a certificate for either side in `<name>.pem` and `<name>.key`; also `<name>-store.pem` with both,
    /// which is what ZooKeeper takes for a key store. The server's own is `server`; on the shared ZooKeeper a name
    /// must be the test's own, or two tests write the same file.
    pub fn issue(&self, name: &str, flaw: Flaw) -> CertFiles {
        let names: &[&str] = match flaw {
            Flaw::NoSubjectAltName => &[],
            Flaw::WrongName => &["zookeeper.example.org"],
            Flaw::AddressesOnly => &["127.0.0.1", "::1"],
            Flaw::None | Flaw::OtherAuthority | Flaw::Expired => &["localhost", "127.0.0.1"],
        };
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("subject alternative names");
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if flaw == Flaw::Expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let issuer = if flaw == Flaw::OtherAuthority { &self.other } else { &self.authority };
        let key = KeyPair::generate().expect("generate a key");
        let pem = params.signed_by(&key, issuer).expect("sign a certificate").pem();
        let key_pem = key.serialize_pem();
        write(&self.dir, &format!("{name}-store.pem"), &format!("{key_pem}{pem}"));
        CertFiles {
            cert: write(&self.dir, &format!("{name}.pem"), &pem),
            key: write(&self.dir, &format!("{name}.key"), &key_pem),
            ca: self.ca.clone(),
        }
    }

    /// The file with key and certificate that [`Pki::issue`] left.
    pub fn store(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}-store.pem"))
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Nodepool test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("generate the authority's key");
    let pem = params.self_signed(&key).expect("sign the authority's certificate").pem();
    (Issuer::new(params, key), pem)
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    path
}
