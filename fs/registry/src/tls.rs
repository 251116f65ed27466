//! HTTP clients: rustls with ring, the system's certificate authorities and those of `hosts.toml`, HTTP/1.1.
//!
//! HTTP/1.1 on purpose: large bodies run faster on several connections than as streams of one.

use std::sync::Arc;

use reqwest::redirect;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use url::Url;

use crate::api_url::is_loopback;
use crate::error::Error;
use crate::hosts::HostConfig;
use crate::limits::Limits;

/// The clients of one configured host.
#[derive(Clone)]
pub(crate) struct HttpClients {
    /// For the host itself: with its client certificate, and unverified if it is configured so.
    own: reqwest::Client,
    /// For redirect targets and token servers: with the host's authorities, and nothing else of it.
    other: reqwest::Client,
    /// The same for this machine's own addresses: never through a proxy.
    other_loopback: reqwest::Client,
}

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
enum PemError {
    #[error("a configured file is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("a certificate or key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the HTTP client cannot be made: {0}")]
    Http(#[from] reqwest::Error),
}

/// The system's certificate authorities; `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured. What cannot be read is left out.
pub(crate) fn system_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::debug!(%error, "a system certificate cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(loaded.certs);
    tracing::debug!(added, ignored, "system certificate authorities");
    roots
}

impl HttpClients {
    pub(crate) fn new(config: &HostConfig, system: &RootCertStore, user_agent: &str, limits: &Limits) -> Result<Self, Error> {
        let build = || -> Result<Self, PemError> {
            let mut roots = system.clone();
            for pem in &config.authorities {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    roots.add(certificate?)?;
                }
            }
            let roots = Arc::new(roots);
            let is_plain = config.client_certificates.is_empty() && !config.skip_verify;
            let verified = tls_config(roots.clone(), None)?;
            let own_tls = if is_plain { verified.clone() } else { tls_config(roots, Some(config))? };
            Ok(Self {
                own: http_client(own_tls, is_loopback(&config.base), user_agent, limits)?,
                other: http_client(verified.clone(), false, user_agent, limits)?,
                other_loopback: http_client(verified, true, user_agent, limits)?,
            })
        };
        build().map_err(|error| Error::Setup { host: crate::secret::redacted(&config.base), source: Arc::new(error) })
    }

    /// The client for `url`; `is_own`: it is of the configured host.
    pub(crate) fn of(&self, url: &Url, is_own: bool) -> &reqwest::Client {
        match (is_own, is_loopback(url)) {
            (true, _) => &self.own,
            (false, true) => &self.other_loopback,
            (false, false) => &self.other,
        }
    }
}

fn http_client(tls: ClientConfig, is_loopback: bool, user_agent: &str, limits: &Limits) -> Result<reqwest::Client, reqwest::Error> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .user_agent(user_agent)
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(limits.connect_timeout)
        .pool_idle_timeout(limits.idle_timeout)
        .pool_max_idle_per_host(limits.connections_per_host)
        .tcp_nodelay(true);
    if is_loopback { builder.no_proxy().build() } else { builder.build() }
}

/// `host`: the host whose client certificate and leniency to use, if any.
fn tls_config(roots: Arc<RootCertStore>, host: Option<&HostConfig>) -> Result<ClientConfig, PemError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if host.is_some_and(|host| host.skip_verify) {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots)
    };
    let mut config = match host.and_then(|host| host.client_certificates.first()) {
        Some((certificates, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>()?;
            let key = PrivateKeyDer::from_pem_slice(if key.is_empty() { certificates } else { key })?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What `skip_verify` asks for: any certificate will do. Signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
