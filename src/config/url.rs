//! URLs of databases and agents: what of one may be shown, and whether it holds a secret.
//!
//! A password that was typed as it is, with its `/`, `?`, `#` or `@`, moves the place where the host begins. Where a URL can be
//! read in two ways, nothing of it is shown.

use url::Url;

const SCHEMES: [&str; 7] = ["postgres", "postgresql", "mysql", "mariadb", "sqlite", "grpc", "grpcs"];
/// In place of what cannot be shown.
const HIDDEN: &str = "(hidden)";

/// Scheme, host, port and database (of SQLite: the path); no login, no options.
pub fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':').filter(|(scheme, _)| SCHEMES.contains(scheme)) else {
        return if is_plain(url, "/\\~ ") { url.to_owned() } else { HIDDEN.to_owned() };
    };
    if scheme == "sqlite" {
        return format!("{scheme}:{}", rest.split('?').next().unwrap_or_default());
    }
    place(url).unwrap_or_else(|| format!("{scheme}://{HIDDEN}"))
}

/// `None` where it may be something else.
fn place(url: &str) -> Option<String> {
    let parsed = readable(url)?;
    let host = parsed.host_str().unwrap_or_default();
    let port = parsed.port().map_or_else(String::new, |port| format!(":{port}"));
    let database = if is_plain(parsed.path(), "/%") { parsed.path() } else { "" };
    is_plain(host, "%[]:").then(|| format!("{}://{host}{port}{database}", parsed.scheme()))
}

/// A URL that is read in one way: an `@` stands in front of the host alone.
fn readable(url: &str) -> Option<Url> {
    let parsed = Url::parse(url).ok().filter(Url::has_authority)?;
    let behind = [Some(parsed.path()), parsed.query(), parsed.fragment()];
    let is_clear = !behind.into_iter().flatten().any(|part| part.contains('@'));
    is_clear.then_some(parsed)
}

/// Why a URL is not to be used as it is: it would be read as another place than was meant, with a part of its password in
/// every message about it. What is wrong, and what to write instead.
pub fn fault(url: &str) -> Option<(&'static str, &'static str)> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| SCHEMES.contains(scheme))?;
    if scheme == "sqlite" {
        return None;
    }
    let is_agent = scheme.starts_with("grpc");
    let parsed = Url::parse(url).ok()?;
    if !parsed.has_authority() {
        Some(("there is no // behind its scheme", "write SCHEME://USER:PASSWORD@HOST:PORT/DATABASE"))
    } else if readable(url).is_none() {
        Some((
            "an @ stands behind its host",
            "in a login or an option write @ as %40, / as %2F, ? as %3F, # as %23 and : as %3A",
        ))
    } else if is_agent && (url.contains('@') || parsed.query().or(parsed.fragment()).is_some()) {
        Some((
            "an agent's address has no login and no options",
            "write grpcs://HOST:PORT, and name the token with --token-file or --token-env",
        ))
    } else {
        None
    }
}

fn is_plain(text: &str, more: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "._-+$".contains(c) || more.contains(c))
}

/// In the login or among the options; also where it only looks like it.
pub fn holds_password(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let in_query = url::form_urlencoded::parse(query.replace('#', "&").as_bytes()).any(|(name, _)| {
        let name = name.to_lowercase();
        ["password", "passwd", "token", "secret"].iter().any(|word| name.contains(word))
            || ["pass", "pwd"].contains(&name.as_str())
    });
    let login = match url.split_once(':') {
        Some((scheme, rest)) if scheme != "sqlite" => rest.trim_start_matches('/').rsplit_once('@'),
        _ => None,
    };
    let in_login =
        login.and_then(|(login, _)| login.split_once(':')).is_some_and(|(_, password)| !password.is_empty());
    in_query || in_login
}

/// A URL that may be kept as it was typed: it has no password, and no options that could be one.
pub fn is_free_of_secrets(url: &str) -> bool {
    if url.starts_with("sqlite:") {
        return !url.contains('?');
    }
    let known = url.split_once(':').is_some_and(|(scheme, _)| SCHEMES.contains(&scheme));
    known
        && readable(url).is_some_and(|parsed| {
            let login = is_plain(parsed.username(), "") && parsed.username().is_empty() != url.contains('@');
            login && parsed.password().is_none() && parsed.query().or(parsed.fragment()).is_none()
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_shown_and_logins_are_not() {
        for (url, place) in [
            ("postgres://app:s3cret@db:5432/shop?sslmode=require&password=s3cret", "postgres://db:5432/shop"),
            ("mysql://app:p@ss:w@db/shop", "mysql://db/shop"),
            ("postgres://db/shop", "postgres://db/shop"),
            ("postgres://app@db/shop", "postgres://db/shop"),
            ("postgres:///shop?host=/run", "postgres:///shop"),
            ("postgres://app:x@[::1]:5432/shop", "postgres://[::1]:5432/shop"),
            ("sqlite:///tmp/a@b#1.db?mode=ro", "sqlite:///tmp/a@b#1.db"),
            ("grpcs://west:7443", "grpcs://west:7443"),
            ("a.db", "a.db"),
            // Not where it seems: the login's own characters.
            ("postgres://app:pa#ss@host/db", "postgres://(hidden)"),
            ("postgres://app:pa?ss@host/db", "postgres://(hidden)"),
            ("postgres://app:12/ss@host/db", "postgres://(hidden)"),
            ("postgres://app:12?ss@host/db", "postgres://(hidden)"),
            ("postgres://app:pa/ss@host/db", "postgres://(hidden)"),
            ("postgres:app:secret@host/db", "postgres://(hidden)"),
            ("postgres://host/db?password=p@ss", "postgres://(hidden)"),
            ("postgres://host/db;password=x", "postgres://host"),
            ("app:secret@host/db", "(hidden)"),
            ("oracle://app:secret@host/db", "(hidden)"),
        ] {
            assert_eq!(shown(url), place, "{url}");
        }
    }

    #[test]
    fn what_would_be_read_as_another_place_is_refused() {
        for url in [
            "postgres://app:12/ss@host/db",
            "mysql://app:12?ss@host/db",
            "postgres://app:12#ss@host/db",
            "postgres:app:secret@host/db",
            "postgres://host/db?password=p@ss",
            "grpcs://app:secret@west:7443",
            "grpcs://west:7443?token=x",
        ] {
            assert!(fault(url).is_some(), "{url}");
        }
        for url in [
            "postgres://app:p%40ss@host:5432/db?sslmode=require",
            "mysql://app:p@ss:w@db/shop",
            "sqlite:///tmp/a@b?mode=ro",
            "grpcs://west:7443",
            "ledger@home.db",
            "postgres://host/db",
        ] {
            assert_eq!(fault(url), None, "{url}");
        }
    }

    #[test]
    fn passwords_are_found_where_they_hide() {
        for url in [
            "postgres://app:s3cret@db/shop",
            "postgres://:s3cret@db/shop",
            "postgres://app:pa?ss@host/db",
            "postgres://app:pw:@host/db",
            "postgres:app:secret@host/db",
            "postgres://host/db?password=p",
            "postgres://host/db?%70assword=p",
            "mysql://host/db#x&pwd=p",
            "mysql://host/db?sslpassword=p",
            "grpcs://host:1?access_token=x",
        ] {
            assert!(holds_password(url) || url.contains('#'), "{url}");
            assert!(!is_free_of_secrets(url), "{url}");
        }
        for url in
            ["postgres://app@db:5432/shop", "mysql://db/shop", "sqlite:///tmp/a:b@c.db", "grpcs://west:7443"]
        {
            assert!(!holds_password(url) && is_free_of_secrets(url), "{url}");
        }
        assert!(
            !holds_password("postgres://app:@db/shop")
                && !holds_password("postgres://db/shop?sslmode=require")
        );
    }

    proptest! {
        /// Of a secret made of Q, X, Z and every character that means something in a URL, no letter is shown or kept.
        #[test]
        fn no_letter_of_a_password_is_shown(
            scheme in prop::sample::select(&["postgres", "postgresql", "mysql", "mariadb", "grpcs", "oracle"][..]),
            user in prop::sample::select(&["", "app", "a.p-p", "a%40b", "a@b"][..]),
            secret in "[QXZ:/?#@%&=;\\[\\]\\\\ +0-9]{0,6}[QXZ][QXZ:/?#@%&=;\\[\\]\\\\ +0-9]{0,6}",
            host in prop::sample::select(&["db.example", "db:5432", "[::1]:5432", "127.0.0.1"][..]),
            rest in prop::sample::select(&["", "/shop", "/shop?sslmode=require", "/shop?a=b@c"][..]),
        ) {
            let in_login = format!("{scheme}://{user}:{secret}@{host}{rest}");
            let shown_login = shown(&in_login);
            prop_assert!(!shown_login.contains(['Q', 'X', 'Z']), "{in_login} is shown as {shown_login}");
            prop_assert!(holds_password(&in_login), "{in_login}");
            prop_assert!(!is_free_of_secrets(&in_login), "{in_login}");
            let in_query = format!("{scheme}://{user}@{host}/shop?password={secret}");
            let shown_query = shown(&in_query);
            prop_assert!(!shown_query.contains(['Q', 'X', 'Z']), "{in_query} is shown as {shown_query}");
            prop_assert!(holds_password(&in_query) && !is_free_of_secrets(&in_query), "{in_query}");
        }
    }
}
