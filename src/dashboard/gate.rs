//! The gate before every page: the name it was reached by, the session, the word of a form; log in and log out.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Site;
use super::look::{Frame, Oops};
use super::session::{LIFETIME, Right, Session, random_word, same_word};

/// Forms are small.
const FORM_BYTES_MAX: usize = 16 * 1024;
const SESSION_COOKIE: &str = "trueup";
const LOGIN_COOKIE: &str = "trueup-login";
/// Reached without a session.
const OPEN: &[&str] = &["/login", "/style.css", "/live.js", "/favicon.svg"];

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The fields of a form whose word was right.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }
}

/// What browsers are told about every answer.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Forms of our own pages must still say where they come from.
        (header::REFERRER_POLICY, "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Lets a request through to its page, with its `Session` and, of a form, its `Fields`.
pub(super) async fn guard(State(site): State<Arc<Site>>, mut request: Request, next: Next) -> Response {
    let host = match served_host(request.headers(), &site.settings.hosts) {
        Ok(host) => host.to_owned(),
        Err(error) => return error.into_response(),
    };
    let session =
        cookie(request.headers(), SESSION_COOKIE).and_then(|cookie| sessions(&site).find(cookie, site.now()));
    let path = request.uri().path().to_owned();
    if session.is_none() && !OPEN.contains(&path.as_str()) {
        return to_login(request.method(), request.uri());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        if !is_own_page(request.headers(), &host) {
            return Oops::refused("this request does not come from a page of this dashboard").into_response();
        }
        let expected = match (&session, path.as_str()) {
            (_, "/login") => cookie(request.headers(), LOGIN_COOKIE).unwrap_or_default().to_owned(),
            (Some(session), _) => session.word.clone(),
            (None, _) => String::new(),
        };
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let Ok(bytes) = to_bytes(body, FORM_BYTES_MAX).await else {
            return Oops::new(StatusCode::PAYLOAD_TOO_LARGE, "the form is too long").into_response();
        };
        let fields = Fields(url::form_urlencoded::parse(&bytes).into_owned().collect());
        if !same_word(&expected, fields.get("word")) {
            return Oops::refused("this form is too old: go back, load the page again, and send it again")
                .into_response();
        }
        request.extensions_mut().insert(fields);
    }
    request.extensions_mut().insert(session);
    next.run(request).await
}

fn sessions(site: &Site) -> std::sync::MutexGuard<'_, super::Sessions> {
    site.sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A page elsewhere can have its own name point to this address; it cannot choose the name that browsers tell us.
fn served_host<'a>(headers: &'a HeaderMap, hosts: &[String]) -> Result<&'a str, Oops> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = bare(host);
    let known = name.eq_ignore_ascii_case("localhost")
        || address(name).is_some()
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(host));
    if known {
        return Ok(host);
    }
    let what = "this dashboard is not served under that name: start it with --allow-host NAME";
    Err(Oops::new(StatusCode::MISDIRECTED_REQUEST, what))
}

/// A host without its port.
fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn address(name: &str) -> Option<IpAddr> {
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    inner.unwrap_or(name).parse().ok()
}

/// Browsers say of every form which page sent it.
fn is_own_page(headers: &HeaderMap, host: &str) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_site_own = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    let is_origin_own = text("origin").is_none_or(|origin| {
        origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
    });
    is_site_own && is_origin_own
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

fn to_login(method: &Method, uri: &Uri) -> Response {
    if *method != Method::GET {
        return Oops::new(StatusCode::UNAUTHORIZED, "log in first").into_response();
    }
    let here = uri.path_and_query().map_or("/", |path| path.as_str());
    let next = if here == "/" {
        String::new()
    } else {
        format!("?next={}", utf8_percent_encode(here, NON_ALPHANUMERIC))
    };
    Redirect::to(&format!("/login{next}")).into_response()
}

/// Only a path of this dashboard: never another site.
fn own_path(next: &str) -> &str {
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if plain && next.starts_with('/') && !next.starts_with("//") { next } else { "/" }
}

/// Without `Secure` only where the browser itself is on this machine.
fn set_cookie(headers: &HeaderMap, name: &str, value: &str, seconds: u64) -> (header::HeaderName, String) {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(bare).unwrap_or_default();
    let near = host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|ip| ip.is_loopback());
    let secure = if near { "" } else { "; Secure" };
    (
        header::SET_COOKIE,
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"),
    )
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    next: String,
}

pub(super) async fn login_page(
    Extension(session): Extension<Option<Session>>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Response {
    if session.is_some() {
        return Redirect::to(own_path(&wanted.next)).into_response();
    }
    form(&headers, own_path(&wanted.next), None)
}

fn form(headers: &HeaderMap, next: &str, wrong: Option<&str>) -> Response {
    // A form that is open in another window stays good.
    let known = cookie(headers, LOGIN_COOKIE)
        .filter(|word| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit()));
    let Some(word) = known.map(str::to_owned).or_else(random_word) else {
        return Oops::new(StatusCode::SERVICE_UNAVAILABLE, "the system has no randomness").into_response();
    };
    let body = html! {
        form.login method="post" action="/login" {
            input type="hidden" name="word" value=(word);
            input type="hidden" name="next" value=(next);
            label for="token" { "Token" }
            input #token type="password" name="token" required autofocus autocomplete="current-password"
                aria-describedby=[wrong.map(|_| "wrong")] aria-invalid=[wrong.map(|_| "true")];
            @if let Some(wrong) = wrong { p #wrong.different role="alert" { (wrong) } }
            button type="submit" { "Log in" }
        }
        p.note { "The token is in the file that the dashboard was started with." }
    };
    let status = if wrong.is_some() { StatusCode::FORBIDDEN } else { StatusCode::OK };
    let cookie = set_cookie(headers, LOGIN_COOKIE, &word, 3600);
    (status, [cookie], Frame::open("Log in").page(&body)).into_response()
}

pub(super) async fn login(
    State(site): State<Arc<Site>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    Extension(fields): Extension<Fields>,
) -> Response {
    let from = peer.map(|Extension(ConnectInfo(address))| address.ip());
    let next = own_path(fields.get("next"));
    let now = site.now();
    {
        let limiter = site.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        if !limiter.allows(from, now) {
            let what = "too many wrong tokens: try again in a minute";
            return Oops::new(StatusCode::TOO_MANY_REQUESTS, what).into_response();
        }
    }
    let shown = fields.get("token").trim();
    let tokens = &site.settings.tokens;
    // Both are compared, whichever fits.
    let (operates, views) =
        (tokens.operate.as_ref().is_some_and(|token| token.matches(shown)), tokens.view.matches(shown));
    let right = match (operates, views) {
        (true, _) => Right::Operate,
        (false, true) => Right::View,
        (false, false) => {
            site.limiter.lock().unwrap_or_else(PoisonError::into_inner).failed(from, now);
            tracing::warn!(?from, "a wrong token was shown to the dashboard");
            return form(&headers, next, Some("That is not the token."));
        }
    };
    let Some(new) = sessions(&site).begin(right, now) else {
        return Oops::new(StatusCode::SERVICE_UNAVAILABLE, "the system has no randomness").into_response();
    };
    if let Some(old) = cookie(&headers, SESSION_COOKIE) {
        sessions(&site).end(old);
    }
    let cookie = set_cookie(&headers, SESSION_COOKIE, &new, LIFETIME.as_secs());
    ([cookie], Redirect::to(next)).into_response()
}

pub(super) async fn logout(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    if let Some(cookie) = cookie(&headers, SESSION_COOKIE) {
        sessions(&site).end(cookie);
    }
    ([set_cookie(&headers, SESSION_COOKIE, "", 0)], Redirect::to("/login")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_paths_are_gone_to() {
        for foreign in ["//evil.example", "https://evil.example", "/\\evil.example", "", "runs", "/a\r\nb"] {
            assert_eq!(own_path(foreign), "/", "{foreign}");
        }
        assert_eq!(own_path("/runs?kind=diff"), "/runs?kind=diff");
    }

    #[test]
    fn names_of_others_are_not_served() {
        let hosts = ["trueup.example".to_owned()];
        let served = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            served_host(&headers, &hosts).is_ok()
        };
        for known in [
            "localhost:8421",
            "127.0.0.1:8421",
            "[::1]:8421",
            "10.0.0.7",
            "trueup.example",
            "TRUEUP.example:443",
        ] {
            assert!(served(known), "{known}");
        }
        for foreign in ["evil.example", "127.0.0.1.evil.example:8421", "localhost.evil.example", "", "a:b:1"]
        {
            assert!(!served(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_form_of_another_page_is_known() {
        let own = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            pairs.iter().for_each(|(name, value)| drop(headers.insert(*name, value.parse().unwrap())));
            is_own_page(&headers, "localhost:1")
        };
        assert!(own(&[]) && own(&[("origin", "http://localhost:1"), ("sec-fetch-site", "same-origin")]));
        assert!(!own(&[("origin", "http://localhost:2")]) && !own(&[("origin", "null")]));
        assert!(!own(&[("sec-fetch-site", "cross-site")]) && !own(&[("sec-fetch-site", "same-site")]));
    }
}
