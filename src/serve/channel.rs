//! Where messages go: a webhook, Slack, PagerDuty, mail, a command.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use sha2::Sha256;
use tokio::io::AsyncWriteExt;

use super::message::{self, Item};

const TIMEOUT: Duration = Duration::from_secs(15);
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// A channel with its secrets read; `Debug` shows none.
pub struct Channel {
    pub name: String,
    pub to: To,
}

pub enum To {
    Webhook { url: String, secret: Option<String> },
    Slack { url: String },
    PagerDuty { url: Option<String>, routing_key: String },
    Email { smtp: String, from: String, to: Vec<String> },
    Command { command: Vec<String> },
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.name)
    }
}

impl fmt::Debug for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Webhook { .. } => "Webhook",
            Self::Slack { .. } => "Slack",
            Self::PagerDuty { .. } => "PagerDuty",
            Self::Email { .. } => "Email",
            Self::Command { .. } => "Command",
        })
    }
}

/// Sends messages; one for all channels.
pub struct Post {
    http: Client<HttpsConnector<HttpConnector>, Full<bytes::Bytes>>,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Post")
    }
}

impl Default for Post {
    fn default() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(TIMEOUT));
        tcp.enforce_http(false);
        let provider = rustls::crypto::ring::default_provider();
        let https = match HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider) {
            Ok(builder) => builder.https_or_http().enable_http1().wrap_connector(tcp),
            // The roots are compiled in; the builder without a provider argument takes the process's.
            Err(_) => HttpsConnectorBuilder::new()
                .with_webpki_roots()
                .https_or_http()
                .enable_http1()
                .wrap_connector(tcp),
        };
        Self { http: Client::builder(TokioExecutor::new()).build(https) }
    }
}

impl Channel {
    /// PagerDuty takes one event at a time.
    pub fn takes_many(&self) -> bool {
        !matches!(self.to, To::PagerDuty { .. })
    }
}

impl Post {
    /// `delivery`, `at` and the items are the same when the same message is sent again; `now` is the time of the signature.
    /// The error names neither address nor answer.
    pub async fn send(
        &self,
        channel: &Channel,
        items: &[Item],
        delivery: &str,
        at: &str,
        now: &str,
    ) -> Result<(), String> {
        let sending = async {
            match &channel.to {
                To::Webhook { url, secret } => {
                    let body = message::document(items, at).to_string();
                    let mut headers = vec![("x-trueup-delivery", delivery.to_owned())];
                    if let Some(secret) = secret {
                        headers.push(("x-trueup-signature", signature(secret, now, &body)));
                    }
                    self.post(url, body, &headers).await
                }
                To::Slack { url } => self.post(url, message::slack(items).to_string(), &[]).await,
                To::PagerDuty { url, routing_key } => {
                    let url = url.as_deref().unwrap_or(PAGERDUTY);
                    for item in items {
                        self.post(url, message::pagerduty(item, routing_key).to_string(), &[]).await?;
                    }
                    Ok(())
                }
                To::Email { smtp, from, to } => mail(smtp, from, to, items, delivery).await,
                To::Command { command } => run(command, message::document(items, at).to_string()).await,
            }
        };
        match tokio::time::timeout(TIMEOUT, sending).await {
            Ok(sent) => sent,
            Err(_) => Err(format!("no answer within {} seconds", TIMEOUT.as_secs())),
        }
    }

    async fn post(&self, url: &str, body: String, headers: &[(&str, String)]) -> Result<(), String> {
        let mut request = hyper::Request::post(url)
            .header("content-type", "application/json")
            .header("user-agent", concat!("trueup/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(body)).map_err(|_| "the address is no URL".to_owned())?;
        // The error's own text names the address, which may be a secret.
        let answer = self.http.request(request).await.map_err(|error| {
            if error.is_connect() { "cannot connect" } else { "the connection broke" }.to_owned()
        })?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("answered with status {}", status.as_u16())),
        }
    }
}

/// `t=TIME,v1=HEX`: HMAC-SHA256 by the secret over `TIME.BODY`, so that neither can be changed or sent again later.
pub fn signature(secret: &str, at: &str, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex}")
}

async fn mail(smtp: &str, from: &str, to: &[String], items: &[Item], delivery: &str) -> Result<(), String> {
    let address =
        |text: &str| text.parse::<Mailbox>().map_err(|_| "an address of the mail cannot be read".to_owned());
    let mut builder = Message::builder()
        .from(address(from)?)
        .subject(message::subject(items))
        .message_id(Some(format!("<{delivery}@trueup>")));
    for to in to {
        builder = builder.to(address(to)?);
    }
    let mail = builder.body(message::plain(items)).map_err(|_| "the mail cannot be written".to_owned())?;
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(smtp)
        .map_err(|_| "the SMTP URL cannot be read: smtps://USER:PASSWORD@HOST".to_owned())?
        .timeout(Some(TIMEOUT))
        .build();
    transport.send(mail).await.map(drop).map_err(|error| match error.status() {
        Some(code) => format!("the mail server answered with {code}"),
        None => "the mail server cannot be reached".to_owned(),
    })
}

async fn run(command: &[String], document: String) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Err("no command".to_owned()) };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("the command cannot be started: {}", error.kind()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read is told by its exit status.
        let _ = stdin.write_all(document.as_bytes()).await;
    }
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the command ended with {status}")),
        Err(error) => Err(format!("the command was lost: {}", error.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::signature;

    /// From `printf '2026-01-01T00:00:00.000Z.{}' | openssl dgst -sha256 -hmac key`.
    #[test]
    fn signatures_are_hmac_sha256_over_time_and_body() {
        assert_eq!(
            signature("key", "2026-01-01T00:00:00.000Z", "{}"),
            "t=2026-01-01T00:00:00.000Z,v1=67ebcdd433d9e897a54a8238ec682dae0c97e771a4f5d8b45ff944b989491770"
        );
    }
}
