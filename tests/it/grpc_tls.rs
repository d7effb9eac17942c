//! Who gets in: certificates, tokens, plaintext; and what the one who does not is told.

use std::sync::Arc;

use tokio::net::TcpListener;
use trueup::agent::security::{ClientSecurity, KeyPair, PeerToken, ServerSecurity};
use trueup::agent::server::serve;
use trueup::agent::{AgentError, AgentHandle, LocalAgent, start};

use super::support::agents::{Listen, Listening, dial, engine_of, local, outcome, task};
use super::support::servers::SqliteDb;
use super::support::tls::Authority;

fn database() -> SqliteDb {
    let db = SqliteDb::create();
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    db
}

async fn agent(db: &SqliteDb) -> Arc<LocalAgent> {
    local(engine_of(db).await)
}

async fn listening(db: &SqliteDb, security: ServerSecurity) -> Listening {
    Listen { security, ..Listen::default() }.start(agent(db).await).await
}

fn trusting(ca: &Authority, identity: Option<KeyPair>) -> ClientSecurity {
    ClientSecurity { ca: Some(ca.pem.clone()), identity, ..ClientSecurity::default() }
}

fn token(text: &str) -> Option<PeerToken> {
    Some(PeerToken::new(text, "the test").unwrap())
}

/// Refused, with what to do, and without the secret.
fn assert_refused(result: Result<trueup::agent::RemoteAgent, AgentError>, kind: &str, hint: &str) {
    let error = result.expect_err(hint);
    assert_eq!(error.kind.as_str(), kind, "{error:?}");
    assert!(error.hint.as_deref().is_some_and(|told| told.contains(hint)), "{hint:?} is not told: {error:?}");
    assert!(!format!("{error:?}").contains("0123456789"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_both_sides_are_checked() {
    let (ca, other_ca) = (Authority::new(), Authority::new());
    let db = database();
    let security = ServerSecurity {
        tls: Some(ca.issue("localhost")),
        client_ca: Some(ca.pem.clone()),
        ..ServerSecurity::default()
    };
    let there = listening(&db, security).await;
    let url = there.tls_url();
    assert!(dial(&url, &trusting(&ca, Some(ca.issue("client")))).await.is_ok());

    assert_refused(dial(&url, &trusting(&other_ca, Some(ca.issue("client")))).await, "unreachable", "--ca");
    // The public roots, by default.
    assert_refused(dial(&url, &ClientSecurity::default()).await, "unreachable", "--ca");
    let by_address = format!("grpcs://127.0.0.1:{}", there.address.port());
    let named_otherwise = dial(&by_address, &trusting(&ca, Some(ca.issue("client")))).await;
    assert_refused(named_otherwise, "unreachable", "host name");
    for (what, identity) in [
        ("none", None),
        ("foreign", Some(other_ca.issue("client"))),
        ("expired", Some(ca.issue_expired("client"))),
    ] {
        // The connection may break before the reason arrives, and is told as broken then; the advice is the same.
        let error = dial(&url, &trusting(&ca, identity)).await.expect_err(what);
        assert!(matches!(error.kind.as_str(), "refused" | "unreachable"), "{what}: {error:?}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("--client-ca")), "{what}: {error:?}");
    }
    // Plaintext where TLS is spoken.
    assert_refused(dial(&there.url(), &ClientSecurity::default()).await, "unreachable", "grpcs://");
    // It still serves those whom it should.
    assert!(dial(&url, &trusting(&ca, Some(ca.issue("client")))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_agent_is_not_believed() {
    let ca = Authority::new();
    let security = ServerSecurity { tls: Some(ca.issue_expired("localhost")), ..ServerSecurity::default() };
    let db = database();
    let there = listening(&db, security).await;
    let error = dial(&there.tls_url(), &trusting(&ca, None)).await.unwrap_err();
    assert!(error.message.to_lowercase().contains("expired"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_where_plaintext_is_spoken_is_told() {
    let db = database();
    let there = listening(&db, ServerSecurity::default()).await;
    let ca = Authority::new();
    assert_refused(dial(&there.tls_url(), &trusting(&ca, None)).await, "unreachable", "grpc://");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_with_every_call() {
    let ca = Authority::new();
    let security = ServerSecurity {
        tls: Some(ca.issue("localhost")),
        token: token("0123456789abcdef"),
        ..ServerSecurity::default()
    };
    let db = database();
    let there = listening(&db, security).await;
    let with = |token| ClientSecurity { token, ..trusting(&ca, None) };
    for wrong in [None, token("0123456789abcdeX"), token("0123456789abcdef0")] {
        assert_refused(dial(&there.tls_url(), &with(wrong)).await, "refused", "--token-file");
    }
    let source = dial(&there.tls_url(), &with(token("0123456789abcdef"))).await.unwrap();
    // All the way through: the target's agent shows its token to the source that it dials.
    let target =
        Listen { peers: with(token("0123456789abcdef")), ..Listen::default() }.start(agent(&db).await).await;
    let (source, target) = ((Arc::new(source) as AgentHandle), target.handle().await);
    let task = task(&source, &target, "t").await;
    assert!(outcome(start(&source, &target, task).await.unwrap()).await.proved);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_door_is_refused() {
    let db = database();
    let ca = Authority::new();
    let tls = || Some(ca.issue("localhost"));
    for security in [
        ServerSecurity::default(),
        ServerSecurity { token: token("0123456789abcdef"), ..ServerSecurity::default() },
        ServerSecurity { token: token("0123456789abcdef"), insecure: true, ..ServerSecurity::default() },
        ServerSecurity { tls: tls(), ..ServerSecurity::default() },
        ServerSecurity { client_ca: Some(ca.pem.clone()), insecure: true, ..ServerSecurity::default() },
        ServerSecurity {
            tls: Some(KeyPair { cert: b"no".to_vec(), key: b"no".to_vec() }),
            insecure: true,
            ..ServerSecurity::default()
        },
        // A key that is another certificate's.
        ServerSecurity {
            tls: Some(KeyPair { cert: ca.issue("a").cert, key: ca.issue("b").key }),
            insecure: true,
            ..ServerSecurity::default()
        },
    ] {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let error = serve(listener, agent(&db).await, &security, ClientSecurity::default(), async {})
            .await
            .expect_err(&format!("{security:?}"));
        assert!(error.kind.as_str() == "usage" && error.hint.is_some(), "{error:?}");
    }
    // Refused before anything is dialled: nobody is there.
    for (security, hint) in [
        (ClientSecurity::default(), "grpcs://"),
        (
            ClientSecurity { token: token("0123456789abcdef"), insecure: true, ..ClientSecurity::default() },
            "grpcs://",
        ),
    ] {
        assert_refused(dial("grpc://192.0.2.1:7443", &security).await, "usage", hint);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_address_is_refused() {
    for address in [
        "grpc://",
        "grpc://127.0.0.1",
        "grpc://:7443",
        "grpc://127.0.0.1:port",
        "grpc://127.0.0.1:99999",
        "http://127.0.0.1:1",
        "grpcs://user@127.0.0.1:7443",
        "grpcs://db.example/path:7443",
    ] {
        assert_refused(dial(address, &ClientSecurity::default()).await, "usage", "HOST:PORT");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = dial(&format!("grpc://{nobody}"), &ClientSecurity::default()).await.unwrap_err();
    assert!(error.message.contains("refused"), "{error:?}");
    let error = dial("grpcs://no-such-host.invalid:7443", &ClientSecurity::default()).await.unwrap_err();
    assert!(
        error.kind.as_str() == "unreachable" && error.message.contains("no-such-host.invalid"),
        "{error:?}"
    );
}
