//! A session beside the program under test that holds locks until it is let go.

use std::sync::mpsc;
use std::thread::JoinHandle;

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};

pub(crate) struct Held {
    go: Option<mpsc::Sender<()>>,
    session: Option<JoinHandle<()>>,
}

impl Held {
    /// The statements have run when this returns; what they lock stays locked until this is dropped.
    pub(crate) fn new(url: String, statements: &[&str]) -> Self {
        let statements: Vec<String> = statements.iter().map(ToString::to_string).collect();
        let (go, wait) = mpsc::channel::<()>();
        let (held, is_held) = mpsc::channel();
        let session = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if url.starts_with("postgres") {
                    hold(
                        PgConnection::connect(&url).await.unwrap(),
                        statements,
                        || held.send(()).unwrap(),
                        wait,
                    )
                    .await;
                } else {
                    hold(
                        MySqlConnection::connect(&url).await.unwrap(),
                        statements,
                        || held.send(()).unwrap(),
                        wait,
                    )
                    .await;
                }
            });
        });
        is_held.recv().unwrap();
        Self { go: Some(go), session: Some(session) }
    }
}

async fn hold<C: Connection>(
    mut connection: C,
    statements: Vec<String>,
    held: impl Fn(),
    wait: mpsc::Receiver<()>,
) where
    for<'c> &'c mut C: Executor<'c>,
{
    for statement in statements {
        (&mut connection).execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.unwrap();
    }
    held();
    let _ = wait.recv();
    let _ = connection.close().await;
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.go.take());
        let _ = self.session.take().map(JoinHandle::join);
    }
}
