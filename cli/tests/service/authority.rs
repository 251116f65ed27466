//! A certificate authority of a test's own, with one server on 127.0.0.1.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SigningKey};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use crate::images::scratch_parent;

/// Of either number of a P-256 signature.
const SCALAR_BYTES: usize = 32;

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    certificate: Certificate,
    key: KeyPair,
    files: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let files = tempfile::tempdir_in(scratch_parent()).unwrap();
        let authority = Self { issuer, certificate, key, files };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        std::fs::write(authority.certificate_file(), authority.certificate.pem()).unwrap();
        std::fs::write(authority.key_file(), authority.key.serialize_pem()).unwrap();
        authority
    }

    /// Its own certificate, for those who are to trust it.
    pub(crate) fn file(&self) -> PathBuf {
        self.files.path().join("authority.pem")
    }

    /// The server's certificate.
    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.files.path().join("server.pem")
    }

    /// The server's key.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.files.path().join("server-key.pem")
    }

    /// The server's certificate in DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        self.certificate.der()
    }

    /// What a server here needs to speak TLS.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        Arc::new(config.with_single_cert(vec![self.certificate.der().clone()], key).unwrap())
    }

    /// Signs with the server's key as JWS wants it (RFC 7518, 3.4): the two numbers one after the other.
    pub(crate) fn sign_es256(&self, message: &[u8]) -> Vec<u8> {
        // SEQUENCE { INTEGER r, INTEGER s }: each with a tag and a length of one byte, and without zeros in front but for the sign.
        let der = self.key.sign(message).unwrap();
        let mut rest = &der[2..];
        let mut signature = Vec::new();
        for _ in 0..2 {
            let (integer, after) = rest[2..].split_at(rest[1].into());
            let digits = &integer[integer.len().saturating_sub(SCALAR_BYTES)..];
            signature.resize(signature.len() + SCALAR_BYTES - digits.len(), 0);
            signature.extend_from_slice(digits);
            rest = after;
        }
        signature
    }
}
