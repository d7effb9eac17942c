//! A login by password, without TLS: `mysql_native_password` and `caching_sha2_password`.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::packets::{END, ERROR, OK, error};
use super::{Lane, LaneError};

/// What a lane can do, of what a server can: sqlx's choice, with the end of definitions told apart from the end of rows.
mod can {
    pub(super) const LONG_PASSWORD: u32 = 1;
    pub(super) const FOUND_ROWS: u32 = 1 << 1;
    pub(super) const CONNECT_WITH_DB: u32 = 1 << 3;
    pub(super) const IGNORE_SPACE: u32 = 1 << 8;
    pub(super) const PROTOCOL_41: u32 = 1 << 9;
    pub(super) const TLS: u32 = 1 << 11;
    pub(super) const TRANSACTIONS: u32 = 1 << 13;
    pub(super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(super) const PLUGIN_AUTH: u32 = 1 << 19;
}

/// Without these there is no login of a kind that is known here.
const NEEDED: u32 = can::PROTOCOL_41 | can::SECURE_CONNECTION | can::PLUGIN_AUTH;
const WANTED: u32 = NEEDED | can::LONG_PASSWORD | can::FOUND_ROWS | can::IGNORE_SPACE | can::TRANSACTIONS;
/// utf8mb4_general_ci; the session's own settings follow.
const CHARSET: u8 = 45;
const PACKET_MAX: u32 = 1 << 30;
/// What `caching_sha2_password` answers behind a mark of its own.
const MORE: u8 = 1;
const FAST_DONE: u8 = 3;
const IN_FULL: u8 = 4;
/// More than any login takes.
const EXCHANGES: usize = 8;

/// Who logs in, and to what.
pub(in crate::engine::mysql) struct Credentials<'a> {
    pub user: &'a str,
    pub password: &'a [u8],
    pub database: Option<&'a str>,
    /// A server that offers TLS is not talked to without it.
    pub unless_tls: bool,
    /// Nobody listens between here and the server.
    pub private: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugin {
    Native,
    CachingSha2,
}

impl Plugin {
    fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"mysql_native_password" => Some(Self::Native),
            b"caching_sha2_password" => Some(Self::CachingSha2),
            _ => None,
        }
    }

    fn name(self) -> &'static [u8] {
        match self {
            Self::Native => b"mysql_native_password\0",
            Self::CachingSha2 => b"caching_sha2_password\0",
        }
    }

    fn answer(self, password: &[u8], nonce: &[u8]) -> Vec<u8> {
        match self {
            Self::Native if password.is_empty() => Vec::new(),
            Self::CachingSha2 if password.is_empty() => vec![0],
            Self::Native => native(password, nonce),
            Self::CachingSha2 => caching_sha2(password, nonce),
        }
    }
}

/// `SHA1(password) XOR SHA1(nonce + SHA1(SHA1(password)))`
fn native(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let once = Sha1::digest(password);
    let twice = Sha1::digest(once);
    let mask = Sha1::new().chain_update(nonce).chain_update(twice).finalize();
    once.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
}

/// `SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce)`
fn caching_sha2(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let once = Sha256::digest(password);
    let twice = Sha256::digest(once);
    let mask = Sha256::new().chain_update(twice).chain_update(nonce).finalize();
    once.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
}

/// What a server says first.
#[derive(Debug, PartialEq, Eq)]
struct Greeting {
    can: u32,
    nonce: Vec<u8>,
    plugin: Vec<u8>,
}

/// Bytes up to a zero, and what is behind it.
fn until_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(bytes.iter().position(|byte| *byte == 0)?)?;
    Some((text, rest.get(1..)?))
}

/// As a server greets since MySQL 5.7 and MariaDB 10.
fn greeting(body: &[u8]) -> Option<Greeting> {
    let (_version, rest) = until_zero(body.strip_prefix(&[10])?)?;
    let (_connection, rest) = rest.split_at_checked(4)?;
    let (first, rest) = rest.split_at_checked(8)?;
    let ([_, low1, low2, _charset, _, _, high1, high2, length], rest) = rest.split_first_chunk::<9>()?;
    let (_reserved, rest) = rest.split_at_checked(10)?;
    // The second part of the nonce has a zero behind it, which its length counts.
    let (second, rest) = rest.split_at_checked(usize::from(length.saturating_sub(8).max(13)))?;
    let second = second.strip_suffix(&[0])?;
    let plugin = until_zero(rest).map_or(rest, |(name, _)| name);
    Some(Greeting {
        can: u32::from_le_bytes([*low1, *low2, *high1, *high2]),
        nonce: [first, second].concat(),
        plugin: plugin.to_vec(),
    })
}

/// The answer to a greeting.
fn response(who: &Credentials<'_>, server_can: u32, plugin: Plugin, answer: &[u8]) -> Option<Vec<u8>> {
    let database = who.database.map_or(0, |_| can::CONNECT_WITH_DB);
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&((WANTED | database) & server_can).to_le_bytes());
    out.extend_from_slice(&PACKET_MAX.to_le_bytes());
    out.push(CHARSET);
    out.extend_from_slice(&[0; 23]);
    let texts = [Some(who.user), who.database].map(|text| text.unwrap_or_default().as_bytes());
    if texts.iter().any(|text| text.contains(&0)) {
        return None;
    }
    let [user, base] = texts;
    out.extend_from_slice(user);
    out.extend_from_slice(&[0, u8::try_from(answer.len()).ok()?]);
    out.extend_from_slice(answer);
    if database != 0 {
        out.extend_from_slice(base);
        out.push(0);
    }
    out.extend_from_slice(plugin.name());
    Some(out)
}

fn unknown() -> LaneError {
    LaneError::Protocol("no login that a lane knows".to_owned())
}

impl Lane {
    pub(super) fn log_in(&mut self, who: &Credentials<'_>) -> Result<(), LaneError> {
        let hello = self.message()?;
        let hello = greeting(&hello).ok_or_else(unknown)?;
        let offers_tls = hello.can & can::TLS != 0;
        if hello.can & NEEDED != NEEDED || (who.unless_tls && offers_tls) {
            return Err(unknown());
        }
        let mut plugin = Plugin::of(&hello.plugin).ok_or_else(unknown)?;
        let answer = plugin.answer(who.password, &hello.nonce);
        self.reply(&response(who, hello.can, plugin, &answer).ok_or_else(unknown)?)?;
        for _ in 0..EXCHANGES {
            let body = self.message()?;
            match (body.first(), plugin) {
                (Some(&OK), _) => return Ok(()),
                (Some(&ERROR), _) => return Err(error(&body)),
                (Some(&END), _) => {
                    let (name, nonce) = body.get(1..).and_then(until_zero).ok_or_else(unknown)?;
                    plugin = Plugin::of(name).ok_or_else(unknown)?;
                    let nonce = nonce.strip_suffix(&[0]).unwrap_or(nonce);
                    self.reply(&plugin.answer(who.password, nonce))?;
                }
                (Some(&MORE), Plugin::CachingSha2) => match body.get(1..) {
                    Some([FAST_DONE]) => {}
                    // The password itself: where nobody listens, and the server asks once.
                    Some([IN_FULL]) if who.private => self.reply(&[who.password, &[0]].concat())?,
                    _ => return Err(unknown()),
                },
                _ => return Err(unknown()),
            }
        }
        Err(unknown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn scrambles() {
        // As Python's hashlib has them.
        let nonce = b"0123456789abcdefghij";
        assert_eq!(native(b"secret", nonce), hex("f5cac3f3b3df2133feb57db682c71e6ed433a988"));
        assert_eq!(
            caching_sha2(b"secret", nonce),
            hex("7e4adda2f2d5ef09b4147518becb0cee2939376203650a8c2bb2815959364bd0")
        );
        assert_eq!(Plugin::Native.answer(b"", nonce), b"");
        assert_eq!(Plugin::CachingSha2.answer(b"", nonce), [0]);
    }

    /// What MySQL 8.0.18 and MariaDB 10.4 said.
    const MYSQL: &[u8] = b"\n8.0.18\x00\x19\x00\x00\x00\x114aB0c\x06g\x00\xff\xff\xff\x02\x00\xff\xc7\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00tL\x03s\x0f[4\rl4. \x00caching_sha2_password\x00";
    const MARIADB: &[u8] = b"\n5.5.5-10.4.7-MariaDB-1:10.4.7+maria~bionic\x00\x0b\x00\x00\x00t6L\\j\"dS\x00\xfe\xf7\x08\x02\x00\xff\x81\x15\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00U14Oph9\"<H5n\x00mysql_native_password\x00";

    #[test]
    fn greetings() {
        let hello = greeting(MYSQL).unwrap();
        assert_eq!(hello.nonce, b"\x114aB0c\x06gtL\x03s\x0f[4\rl4. ");
        assert_eq!(hello.plugin, b"caching_sha2_password");
        assert_eq!(hello.can & (NEEDED | can::TLS), NEEDED | can::TLS);
        let hello = greeting(MARIADB).unwrap();
        assert_eq!((hello.nonce.len(), hello.plugin.as_slice()), (20, &b"mysql_native_password"[..]));
        assert_eq!(hello.can & (NEEDED | can::TLS), NEEDED);
        for end in 0..MARIADB.len() - b"mysql_native_password\x00".len() {
            assert_eq!(greeting(&MARIADB[..end]), None, "{end}");
        }
        assert_eq!(greeting(b"\xff\x10\x04Too many connections"), None);
    }

    fn who(unless_tls: bool, private: bool) -> Credentials<'static> {
        Credentials { user: "me", password: b"secret", database: Some("shop"), unless_tls, private }
    }

    #[test]
    fn answers_to_a_greeting() {
        let out = response(&who(true, false), u32::MAX, Plugin::Native, &[7; 20]).unwrap();
        assert_eq!(out[..4], (WANTED | can::CONNECT_WITH_DB).to_le_bytes());
        assert_eq!(out[32..], *b"me\0\x14\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07shop\0mysql_native_password\0");
        let nobody = Credentials { user: "m\0e", ..who(true, false) };
        assert_eq!(response(&nobody, u32::MAX, Plugin::Native, &[]), None);
    }

    fn log_in(who: &Credentials<'_>, said: &[&[u8]]) -> Result<(), LaneError> {
        let mut wire = Vec::new();
        for body in said {
            crate::engine::mysql::lane::packets::put(&mut wire, 0, body);
        }
        crate::engine::mysql::lane::tests::lane(&wire).log_in(who)
    }

    #[test]
    fn logins() {
        let switch = b"\xfecaching_sha2_password\x00aaaaaaaaaaaaaaaaaaaa\x00";
        let ok: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
        for (private, said, fine) in [
            (false, &[MARIADB, ok][..], true),
            (false, &[MARIADB, switch, &[1, 3], ok], true),
            (true, &[MARIADB, switch, &[1, 4], ok], true),
            // The password itself does not go over a network in the clear.
            (false, &[MARIADB, switch, &[1, 4], ok], false),
            (false, &[MARIADB, b"\xfemysql_clear_password\x00", ok], false),
            (false, &[MARIADB, b"\xfeclient_ed25519\x00aaaa", ok], false),
            (false, &[MARIADB, b"\xff\x15\x04#28000Access denied"], false),
            (false, &[MARIADB, &[]], false),
            (false, &[MARIADB, &[1]], false),
            (false, &[MYSQL, ok], false),
            (false, &[b"\xff\x10\x04Too many connections"], false),
            (false, &[MARIADB, switch, switch, switch, switch, switch, switch, switch, switch, ok], false),
        ] {
            assert_eq!(log_in(&who(true, private), said).is_ok(), fine, "{said:?}");
        }
        assert!(log_in(&who(false, false), &[MYSQL, &[1, 3], ok]).is_ok());
    }
}
