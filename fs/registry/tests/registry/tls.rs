//! TLS with a certificate authority of its own.

use super::*;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use snap_registry::testing::TokenAuth;

/// A certificate authority, a certificate of it for 127.0.0.1, and that certificate's key.
struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    certificate: Certificate,
    key: KeyPair,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        Self { authority, certificate, key }
    }

    /// A server with this certificate, which asks for one of `clients` if there is such an authority.
    async fn server(&self, clients: Option<&Self>) -> FaultyRegistry {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.authority.der().clone()).unwrap();
                config.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap())
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = config.with_single_cert(vec![self.certificate.der().clone()], key).unwrap();
        FaultyRegistry::start_tls(Arc::new(config)).await
    }
}

/// A server, and the certificate of its authority in PEM.
async fn server() -> (FaultyRegistry, String) {
    let certificates = Certificates::new();
    (certificates.server(None).await, certificates.authority.pem())
}

fn hosts_toml(setup: &Setup, registry: &FaultyRegistry, more: &str) {
    let text = format!("server = \"https://{}\"\n{more}\n", registry.addr());
    setup.write(&format!("certs.d/{}/hosts.toml", registry.addr()), text);
}

#[tokio::test]
async fn an_authority_of_hosts_toml_is_trusted_by_host_and_token_server() {
    let ((registry, authority), setup) = (server().await, Setup::new());
    registry.require_token(TokenAuth::default());
    setup.write(&format!("certs.d/{}/ca.pem", registry.addr()), authority);
    hosts_toml(&setup, &registry, "ca = \"ca.pem\"");
    assert_eq!(setup.blob(&registry, &registry.add_blob(sample(100))).read(0..100).await.unwrap(), sample(100));
    assert_eq!(registry.count("/token"), 1);
}

#[tokio::test]
async fn a_docker_directory_does_it_as_well() {
    let ((registry, authority), setup) = (server().await, Setup::new());
    setup.write(&format!("certs.d/{}/ca.crt", registry.addr()), authority);
    assert_eq!(setup.blob(&registry, &registry.add_blob(sample(100))).read(0..100).await.unwrap(), sample(100));
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_configured() {
    let (own, clients, setup) = (Certificates::new(), Certificates::new(), Setup::new());
    let registry = own.server(Some(&clients)).await;
    let dir = format!("certs.d/{}", registry.addr());
    setup.write(&format!("{dir}/ca.pem"), own.authority.pem());
    hosts_toml(&setup, &registry, "ca = \"ca.pem\"");
    let descriptor = registry.add_blob(sample(100));
    assert!(setup.blob(&registry, &descriptor).read(0..100).await.is_err());
    assert_eq!(registry.requests(), []);
    setup.write(&format!("{dir}/c.cert"), clients.certificate.pem());
    setup.write(&format!("{dir}/c.key"), clients.key.serialize_pem());
    hosts_toml(&setup, &registry, "ca = \"ca.pem\"\nclient = [[\"c.cert\", \"c.key\"]]");
    assert_eq!(setup.blob(&registry, &descriptor).read(0..100).await.unwrap(), sample(100));
}

#[tokio::test]
async fn an_unknown_authority_is_refused_at_once_with_a_hint() {
    let ((registry, _), setup) = (server().await, Setup::new());
    hosts_toml(&setup, &registry, "");
    let error = setup.blob(&registry, &registry.add_blob(sample(100))).read(0..100).await.unwrap_err().to_string();
    assert!(error.contains("1 attempt ") && error.contains("hint: name the registry's CA in "), "{error}");
    assert_eq!(registry.requests(), []);
}

#[tokio::test]
async fn skip_verify_takes_any_certificate() {
    let ((registry, _), setup) = (server().await, Setup::new());
    hosts_toml(&setup, &registry, "skip_verify = true");
    assert_eq!(setup.blob(&registry, &registry.add_blob(sample(100))).read(0..100).await.unwrap(), sample(100));
}

#[tokio::test]
async fn a_server_without_tls_gives_the_hint_for_plain_http() {
    let (registry, setup) = (FaultyRegistry::start().await, Setup::new());
    hosts_toml(&setup, &registry, "");
    let error = setup.blob(&registry, &registry.add_blob(sample(100))).read(0..100).await.unwrap_err().to_string();
    assert!(error.contains("hint: the registry speaks plain http"), "{error}");
}
