//! Who is logged in, and who tries too often.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use subtle::ConstantTimeEq;

/// A session ends after so long, used or not.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Beyond these the one that ends first is ended.
const SESSIONS_MAX: usize = 1_000;
/// Wrong tokens of one address in one window.
const TRIES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses told apart; the others are counted together.
const ADDRESSES_MAX: usize = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    View,
    Operate,
}

#[derive(Clone)]
pub(super) struct Session {
    pub(super) right: Right,
    /// Every request that changes something carries it.
    pub(super) word: String,
    until: SystemTime,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?})", self.right)
    }
}

/// Compares in constant time; an empty word is none.
pub(super) fn same_word(left: &str, right: &str) -> bool {
    !left.is_empty() && bool::from(left.as_bytes().ct_eq(right.as_bytes()))
}

/// 256 random bits as hex digits; `None` where the system has no randomness.
pub(super) fn random_word() -> Option<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}

/// Sessions by the digest of their cookie: looking one up tells nothing of another.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeMap<[u8; 32], Session>);

impl Sessions {
    /// The new session's cookie.
    pub(super) fn begin(&mut self, right: Right, now: SystemTime) -> Option<String> {
        self.0.retain(|_, session| session.until > now);
        while self.0.len() >= SESSIONS_MAX {
            let first = self.0.iter().min_by_key(|(_, session)| session.until).map(|(digest, _)| *digest);
            first.and_then(|digest| self.0.remove(&digest));
        }
        let (cookie, word) = (random_word()?, random_word()?);
        self.0.insert(digest(&cookie), Session { right, word, until: now + LIFETIME });
        Some(cookie)
    }

    pub(super) fn find(&self, cookie: &str, now: SystemTime) -> Option<Session> {
        self.0.get(&digest(cookie)).filter(|session| session.until > now).cloned()
    }

    pub(super) fn end(&mut self, cookie: &str) {
        self.0.remove(&digest(cookie));
    }
}

fn digest(cookie: &str) -> [u8; 32] {
    *blake3::hash(cookie.as_bytes()).as_bytes()
}

/// Counts wrong tokens by address.
#[derive(Debug, Default)]
pub(super) struct Limiter(BTreeMap<Option<IpAddr>, (SystemTime, u32)>);

impl Limiter {
    /// Whether this address may try once more.
    pub(super) fn allows(&self, from: Option<IpAddr>, now: SystemTime) -> bool {
        self.0.get(&self.place(from)).is_none_or(|(since, tries)| is_over(*since, now) || *tries < TRIES_MAX)
    }

    pub(super) fn failed(&mut self, from: Option<IpAddr>, now: SystemTime) {
        self.0.retain(|_, (since, _)| !is_over(*since, now));
        let place = self.place(from);
        self.0.entry(place).or_insert((now, 0)).1 += 1;
    }

    fn place(&self, from: Option<IpAddr>) -> Option<IpAddr> {
        // Who has one address of IPv6 has its whole network.
        let from = match from {
            Some(IpAddr::V6(address)) if address.to_ipv4_mapped().is_none() => {
                Some(IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()))
            }
            other => other,
        };
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(&from) { None } else { from }
    }
}

/// A clock that was set back begins a new window too.
fn is_over(since: SystemTime, now: SystemTime) -> bool {
    now.duration_since(since).map_or(true, |passed| passed >= WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn a_session_is_its_cookie_and_ends() {
        let mut sessions = Sessions::default();
        let cookie = sessions.begin(Right::View, START).unwrap();
        let other = sessions.begin(Right::Operate, START).unwrap();
        assert_eq!(sessions.find(&cookie, START).unwrap().right, Right::View);
        assert_eq!(sessions.find(&other, START).unwrap().right, Right::Operate);
        assert!(sessions.find("", START).is_none() && sessions.find(&cookie[1..], START).is_none());
        assert_ne!(sessions.find(&cookie, START).unwrap().word, sessions.find(&other, START).unwrap().word);
        assert!(sessions.find(&cookie, START + LIFETIME).is_none());
        sessions.end(&other);
        assert!(sessions.find(&other, START).is_none() && sessions.find(&cookie, START).is_some());
    }

    #[test]
    fn sessions_are_bounded() {
        let mut sessions = Sessions::default();
        let first = sessions.begin(Right::View, START).unwrap();
        let later = START + Duration::from_secs(1);
        let rest: Vec<String> =
            (0..SESSIONS_MAX).filter_map(|_| sessions.begin(Right::View, later)).collect();
        assert!(sessions.find(&first, later).is_none());
        assert!(rest.iter().all(|cookie| sessions.find(cookie, later).is_some()));
    }

    #[test]
    fn tries_are_counted_by_address() {
        let mut limiter = Limiter::default();
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let neighbour: IpAddr = "2001:db8::ffff:2".parse().unwrap();
        for _ in 0..TRIES_MAX {
            assert!(limiter.allows(Some(a), START) && limiter.allows(Some(b), START));
            limiter.failed(Some(a), START);
            limiter.failed(Some(b), START);
        }
        assert!(!limiter.allows(Some(a), START) && !limiter.allows(Some(neighbour), START));
        assert!(limiter.allows(Some("192.0.2.2".parse().unwrap()), START) && limiter.allows(None, START));
        assert!(limiter.allows(Some(a), START + WINDOW));
        for n in 0..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            limiter.failed(Some(IpAddr::from(n.to_be_bytes())), START);
        }
        assert!(limiter.0.len() <= ADDRESSES_MAX + 1);
        assert!(!limiter.allows(Some("203.0.113.9".parse().unwrap()), START), "counted together");
    }

    #[test]
    fn words_are_compared_whole() {
        assert!(same_word("ab", "ab") && !same_word("ab", "abc") && !same_word("", ""));
    }
}
