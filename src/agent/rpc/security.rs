//! Who may connect: TLS, certificates, bearer tokens, and where plaintext is allowed at all.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use super::super::error::{AgentError, FailureKind};

const TOKEN_CHARS_MIN: usize = 16;
/// A peer that connects and then says nothing holds no place for longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A shared secret that a peer shows over TLS. Held as a digest, so that comparing tells nothing of it.
#[derive(Clone)]
pub struct PeerToken {
    text: String,
    digest: [u8; 32],
}

impl fmt::Debug for PeerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerToken(..)")
    }
}

impl PeerToken {
    /// From the content of a file or of an environment variable, named `from` in errors.
    pub fn new(text: &str, from: &str) -> Result<Self, AgentError> {
        let text = text.trim();
        if text.len() < TOKEN_CHARS_MIN || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(AgentError::new(
                FailureKind::Usage,
                format!("the token in {from} must be at least {TOKEN_CHARS_MIN} visible ASCII characters"),
            )
            .with_hint("make one with: openssl rand -hex 32"));
        }
        Ok(Self { text: text.to_owned(), digest: *blake3::hash(text.as_bytes()).as_bytes() })
    }

    /// In constant time, whatever the other's length.
    pub fn matches(&self, shown: &str) -> bool {
        self.digest.ct_eq(blake3::hash(shown.as_bytes()).as_bytes()).into()
    }

    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.text)
    }
}

/// A certificate chain and its key, PEM.
#[derive(Clone)]
pub struct KeyPair {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(..)")
    }
}

/// What a listening agent asks of its peers.
#[derive(Debug, Clone, Default)]
pub struct ServerSecurity {
    pub tls: Option<KeyPair>,
    /// Peers must show a certificate of this CA.
    pub client_ca: Option<Vec<u8>>,
    /// Peers must show this token.
    pub token: Option<PeerToken>,
    /// Plaintext, or no authentication, also beyond loopback.
    pub insecure: bool,
    /// The only peers, as `host` or `host:port`, that a coordinator may have this agent dial; empty: see `check_dial`.
    pub dials: Vec<String>,
}

/// What a dialling agent shows, and whom it believes.
#[derive(Debug, Clone, Default)]
pub struct ClientSecurity {
    /// The CA that the peer's certificate must be of; the public roots where it is not given.
    pub ca: Option<Vec<u8>>,
    pub identity: Option<KeyPair>,
    pub token: Option<PeerToken>,
    pub insecure: bool,
}

fn usage(message: String, hint: &str) -> AgentError {
    AgentError::new(FailureKind::Usage, message).with_hint(hint)
}

impl ServerSecurity {
    /// Whether a coordinator may have this agent dial `address`. The token must not be shown to whomever the coordinator
    /// names: without a list, the peer must be of this agent's own CA, or on this machine.
    pub fn check_dial(&self, address: &str, shows: &ClientSecurity) -> Result<(), AgentError> {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest).trim_end_matches('/');
        let host = match rest.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => rest,
        };
        let is = |allowed: &String| allowed.eq_ignore_ascii_case(rest) || allowed.eq_ignore_ascii_case(host);
        let allowed = if self.dials.is_empty() {
            shows.token.is_none() || shows.ca.is_some() || is_loopback(host)
        } else {
            self.dials.iter().any(is)
        };
        if allowed {
            return Ok(());
        }
        Err(AgentError::new(FailureKind::Refused, format!("this agent was not started to dial {host}"))
            .with_hint("start it with --allow-peer HOST for each source it may reconcile with"))
    }

    /// Refuses what would be open to the network.
    pub fn check(&self, address: IpAddr) -> Result<(), AgentError> {
        if self.client_ca.is_some() && self.tls.is_none() {
            return Err(usage("client certificates need TLS".to_owned(), "give --cert and --key-file too"));
        }
        if address.is_loopback() {
            return Ok(());
        }
        if self.tls.is_none() && self.token.is_some() {
            return Err(usage(
                format!("listening on {address} without TLS would have peers show the token to the network"),
                "give --cert and --key-file, or listen on 127.0.0.1; --insecure does not go together with a token",
            ));
        }
        if self.insecure {
            return Ok(());
        }
        if self.tls.is_none() {
            return Err(usage(
                format!("listening on {address} without TLS would show rows to the network"),
                "give --cert and --key-file, or listen on 127.0.0.1; --insecure accepts the risk",
            ));
        }
        if self.client_ca.is_none() && self.token.is_none() {
            return Err(usage(
                format!("listening on {address} would serve anyone"),
                "give --client-ca or --token-file (--token-env), so that peers must show who they are; --insecure accepts the risk",
            ));
        }
        Ok(())
    }

    pub(super) fn tls_config(&self) -> Option<ServerTlsConfig> {
        let pair = self.tls.as_ref()?;
        let identity = Identity::from_pem(&pair.cert, &pair.key);
        let mut config = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE_TIMEOUT);
        if let Some(ca) = &self.client_ca {
            config = config.client_ca_root(Certificate::from_pem(ca));
        }
        Some(config)
    }
}

impl ClientSecurity {
    pub(super) fn tls_config(&self) -> ClientTlsConfig {
        let mut config = match &self.ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)),
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        config = config.timeout(HANDSHAKE_TIMEOUT);
        if let Some(pair) = &self.identity {
            config = config.identity(Identity::from_pem(&pair.cert, &pair.key));
        }
        config
    }

    /// Plaintext to another machine is refused; a token goes there over TLS only, whatever is accepted otherwise.
    pub(super) fn check_plaintext(&self, host: &str) -> Result<(), AgentError> {
        if is_loopback(host) {
            return Ok(());
        }
        if self.token.is_some() {
            return Err(usage(
                format!("grpc://{host} would show the token to the network"),
                "use grpcs:// with a certificate on the other side; --insecure does not go together with a token",
            ));
        }
        if self.insecure {
            return Ok(());
        }
        Err(usage(
            format!("grpc://{host} would send rows in plaintext over the network"),
            "use grpcs:// with a certificate on the other side; --insecure accepts the risk",
        ))
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads a PEM file; its name is in the error.
pub fn read_pem(path: &Path) -> Result<Vec<u8>, AgentError> {
    let bytes = std::fs::read(path).map_err(|error| {
        usage(format!("cannot read {}: {error}", path.display()), "check the path and its permissions")
    })?;
    if !String::from_utf8_lossy(&bytes).contains("-----BEGIN ") {
        return Err(usage(
            format!("{} holds no PEM block", path.display()),
            "convert it: openssl x509 -inform der -in FILE",
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole_and_never_shown() {
        let token = PeerToken::new("0123456789abcdef\n", "FILE").unwrap();
        assert!(token.matches("0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF"] {
            assert!(!token.matches(other));
        }
        assert_eq!(format!("{token:?}"), "PeerToken(..)");
        let refused = PeerToken::new("short", "the file x").unwrap_err();
        assert!(refused.message.contains("the file x") && !refused.message.contains("short"));
    }

    #[test]
    fn the_network_needs_tls_and_a_proof() {
        let (near, far): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "0.0.0.0".parse().unwrap());
        let mut security = ServerSecurity::default();
        assert!(security.check(near).is_ok());
        assert!(security.check(far).is_err());
        security.tls = Some(KeyPair { cert: Vec::new(), key: Vec::new() });
        assert!(security.check(far).is_err());
        security.token = Some(PeerToken::new("0123456789abcdef", "x").unwrap());
        assert!(security.check(far).is_ok());
        assert!(ServerSecurity { insecure: true, ..ServerSecurity::default() }.check(far).is_ok());
        let client = ClientSecurity::default();
        assert!(["localhost", "127.0.0.1", "[::1]"].iter().all(|host| client.check_plaintext(host).is_ok()));
        for far in ["db.example", "127.0.0.1.db.example", "localhost@db.example", "[::1", "[[::1]]", ""] {
            assert!(client.check_plaintext(far).is_err(), "{far}");
        }
    }

    #[test]
    fn a_coordinator_cannot_have_the_token_shown_to_anybody() {
        let token = || Some(PeerToken::new("0123456789abcdef", "x").unwrap());
        let open = ServerSecurity::default();
        let shows = ClientSecurity { token: token(), ..ClientSecurity::default() };
        assert!(open.check_dial("grpcs://evil.example:7443", &shows).is_err());
        assert!(open.check_dial("grpcs://localhost:7443", &shows).is_ok());
        let own_ca = ClientSecurity { ca: Some(Vec::new()), token: token(), ..ClientSecurity::default() };
        assert!(open.check_dial("grpcs://west.example:7443", &own_ca).is_ok());
        let listed = ServerSecurity {
            dials: vec!["west.example".into(), "east.example:7443".into(), "[::1]".into()],
            ..ServerSecurity::default()
        };
        for address in
            ["grpcs://west.example:1", "grpcs://West.Example/", "grpcs://east.example:7443", "grpc://[::1]:2"]
        {
            assert!(listed.check_dial(address, &shows).is_ok(), "{address}");
        }
        for address in [
            "grpcs://east.example:7444",
            "grpcs://west.example.evil:1",
            "grpcs://x@west.example:1:2",
            "",
            "grpcs://",
        ] {
            assert!(listed.check_dial(address, &own_ca).is_err(), "{address}");
        }
    }

    #[test]
    fn insecure_never_covers_a_token() {
        let far: IpAddr = "10.0.0.1".parse().unwrap();
        let token = || Some(PeerToken::new("0123456789abcdef", "x").unwrap());
        let server = ServerSecurity { insecure: true, token: token(), ..ServerSecurity::default() };
        assert!(server.check(far).is_err());
        assert!(server.check("127.0.0.1".parse().unwrap()).is_ok());
        let client = ClientSecurity { insecure: true, token: token(), ..ClientSecurity::default() };
        assert!(client.check_plaintext("10.0.0.1").is_err());
        assert!(client.check_plaintext("127.0.0.1").is_ok());
        assert!(
            ClientSecurity { insecure: true, ..ClientSecurity::default() }
                .check_plaintext("10.0.0.1")
                .is_ok()
        );
    }
}
