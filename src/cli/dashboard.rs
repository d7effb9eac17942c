//! `trueup dashboard`: the ledger in a browser, to be looked at.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use tokio::net::TcpListener;

use super::Failure;
use super::endpoint::token_in;
use super::evidence::open_ledger;
use super::evidence_args::LedgerArgs;
use super::shutdown::Shutdown;
use crate::dashboard::{Dashboard, Settings, Tokens, router};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  openssl rand -hex 32 > token && chmod 600 token
  trueup dashboard --token-file token
  trueup dashboard --token-file token --ledger env:LEDGER --allow-host trueup.example")]
pub(super) struct DashboardArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Address and port to listen on; port 0 takes a free one and tells it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8421")]
    listen: SocketAddr,
    /// File that holds the token to log in with
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// A name by which browsers reach it through a proxy (may be repeated), beside localhost and addresses
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Listen beyond this machine without TLS: a proxy has to add it
    #[arg(long)]
    insecure: bool,
}

pub(super) async fn run(args: &DashboardArgs, shutdown: &Shutdown) -> Result<u8, Failure> {
    if !args.listen.ip().is_loopback() && !args.insecure {
        return Err(Failure::new(
            format!("listening on {} would show the ledger to the network without TLS", args.listen.ip()),
            "listen on 127.0.0.1 behind a proxy that adds TLS; --insecure accepts the risk",
        ));
    }
    let view = token_in(&args.token_file, "make one with: openssl rand -hex 32")?;
    let ledger = open_ledger(&args.ledger, false).await?;
    let dashboard = Dashboard::new(Settings {
        ledger,
        tokens: Tokens { view, operate: None },
        hosts: args.allow_host.clone(),
        actions: None,
        now: SystemTime::now,
    });
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::new(format!("cannot listen on {}: {error}", args.listen), "choose another --listen address")
    })?;
    let _ = writeln!(std::io::stderr().lock(), "listening on http://{}/", listener.local_addr()?);
    let service = router(dashboard).into_make_service_with_connect_info::<SocketAddr>();
    // Nothing is written: there is nothing to bring to an end.
    tokio::select! {
        ended = async { axum::serve(listener, service).await } => ended?,
        () = shutdown.clone().requested() => {}
    }
    Ok(0)
}
