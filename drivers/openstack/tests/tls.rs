//! TLS with an authority of one's own.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use super::server::Hears;
use super::*;

/// An authority, and certificates of it.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self, name: &str, clients: bool) -> Server {
        let (cert, key) = self.issue(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if clients {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let config =
            builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
        let script = |heard: &Heard| match heard.path.as_str() {
            "/identity/v3/auth/tokens" => {
                let url = format!("https://{}/image", heard.header("host").unwrap());
                let mut catalog = catalog("");
                catalog[0]["endpoints"][0]["url"] = json!(url);
                token("t", &catalog, 3600)
            }
            _ => right(heard),
        };
        Server::with(script, |_, _| Hears::All, Some(Arc::new(config)))
    }
}

fn url(server: &Server) -> String {
    format!("https://localhost:{}/identity/v3", server.address.port())
}

fn files(authority: &Authority) -> (Scratch, String) {
    let scratch = Scratch::new();
    let path = scratch.path().join("ca.pem");
    std::fs::write(&path, authority.0.pem()).unwrap();
    let keys = format!(", cacert: {}", path.display());
    (scratch, keys)
}

/// The first attempt tells: what cannot be reached is tried again and again.
fn error_of(fixture: &Fixture) -> String {
    let source = nodepool_threads::StopSource::new();
    let call = testing::call(&source.token().deadline_in(std::time::Duration::from_secs(2)));
    fixture.images().list(&call).unwrap_err().to_string()
}

#[test]
fn an_authority_of_ones_own_is_trusted_and_uploads_arrive() {
    let authority = Authority::new();
    let server = authority.server("localhost", false);
    let (_files, keys) = files(&authority);
    let fixture = Fixture::of(&url(&server), &keys);
    fixture.list().unwrap();
    fixture.upload(&fixture.image(3 << 20)).unwrap();
    assert!(server.wait_for(|heard| heard.method == "PUT").body.len() == 3 << 20);
}

#[test]
fn other_certificates_are_refused_with_the_reason() {
    let authority = Authority::new();
    let server = authority.server("localhost", false);
    let (_files, keys) = files(&Authority::new());
    let error = error_of(&Fixture::of(&url(&server), &keys));
    assert!(
        error.contains("its certificate is not signed by an authority in ") && error.contains("cacert"),
        "{error}"
    );
    let other_name = authority.server("elsewhere", false);
    let (_files, keys) = files(&authority);
    let error = error_of(&Fixture::of(&url(&other_name), &keys));
    assert!(error.contains("its certificate is refused: "), "{error}");
    let plain = Server::start(right);
    let error = error_of(&Fixture::of(&url(&plain), &keys));
    assert!(error.contains("does not speak TLS there"), "{error}");
    assert!(plain.heard().iter().all(|heard| heard.header("x-auth-token").is_none()));
    Fixture::of(&url(&server), ", verify: false").list().unwrap();
}

#[test]
fn a_client_certificate_is_shown() {
    let authority = Authority::new();
    let server = authority.server("localhost", true);
    let (scratch, keys) = files(&authority);
    let error = error_of(&Fixture::of(&url(&server), &keys));
    assert!(
        error.contains("another client certificate") || error.contains("the connection was lost"),
        "{error}"
    );
    let (cert, key) = authority.issue("client");
    std::fs::write(scratch.path().join("both.pem"), format!("{cert}{key}")).unwrap();
    let keys = format!("{keys}, cert: {}", scratch.path().join("both.pem").display());
    Fixture::of(&url(&server), &keys).list().unwrap();
}

#[test]
fn files_that_cannot_be_used_are_told_when_the_provider_is_opened() {
    let authority = Authority::new();
    let scratch = Scratch::new();
    let write = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (cert, _) = authority.issue("a");
    let (_, other_key) = authority.issue("b");
    let (cert, key, empty) = (write("cert", &cert), write("key", &other_key), write("empty", ""));
    let cases = [
        (format!(", cacert: {empty}"), format!("{empty} (cacert): holds no certificate in PEM format")),
        (
            ", cacert: /nowhere".to_owned(),
            "cannot read /nowhere (cacert): No such file or directory (os error 2)".to_owned(),
        ),
        (format!(", verify: false, cert: {cert}"), format!("{cert} (cert): holds no private key: ")),
        (
            format!(", verify: false, cert: {cert}, key: {key}"),
            format!("{cert} (cert): does not fit the key: "),
        ),
    ];
    for (keys, expected) in cases {
        let section = json!({"name": "p", "cloud": "c"});
        let cloud = format!(
            "clouds: {{c: {{auth: {{auth_url: 'https://k', user_id: u, password: s, project_id: p}}{keys}}}}}"
        );
        std::fs::write(scratch.path().join("clouds.yaml"), cloud).unwrap();
        let config = read(&scratch, section).0.unwrap();
        let error = config.open(&testing::logger()).err().unwrap().to_string();
        assert!(error.contains(&expected), "{error}");
    }
}
