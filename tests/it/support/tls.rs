//! A certificate authority of a test's own.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as RcgenKeyPair,
    date_time_ymd,
};
use trueup::agent::security::KeyPair;

pub(crate) struct Authority {
    issuer: Issuer<'static, RcgenKeyPair>,
    pub(crate) pem: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = RcgenKeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem().into_bytes();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name or an address, for servers and clients alike.
    pub(crate) fn issue(&self, name: &str) -> KeyPair {
        self.sign(name, |_| {})
    }

    pub(crate) fn issue_expired(&self, name: &str) -> KeyPair {
        self.sign(name, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> KeyPair {
        let key = RcgenKeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        KeyPair { cert: cert.pem().into_bytes(), key: key.serialize_pem().into_bytes() }
    }
}
