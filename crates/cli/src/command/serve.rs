//! `syncline serve`: the server over a directory, until it is told to stop.

use crate::exposition::Exposition;
use crate::signal::Stop;
use crate::{Failure, Global, Report, logging, report, secret};
use serde_json::json;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use syncline_server::{Authenticator, ServerConfig, Service};
use syncline_server_sqlite::{OpenError, SqliteStorage};
use tokio::net::TcpListener;

/// Serve a directory to devices, until SIGTERM or SIGINT
///
/// Prints `listening on http://ADDRESS` on stdout once it is ready.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's data; created if missing, served by one process at a time
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8470", value_parser = address)]
    listen: String,
    /// Entity types, their schemas, and limits
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tell Prometheus at http://ADDRESS/metrics how the server does; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    metrics: Option<String>,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<Report, Failure> {
    let config = load_config(args.config.as_deref())?;
    let storage = SqliteStorage::open(&args.data).map_err(storage_failure)?;
    let secret = secret::load(&args.data)?;
    let authenticator = Authenticator::hs256(&secret.bytes)
        .map_err(|error| Failure::new("damaged-secret", error.to_string()))?;
    let service = Service::new(storage, authenticator, config).map_err(|error| {
        Failure::new("bad-config", error.to_string()).hint("correct the file given with --config")
    })?;
    let service = service.log_values(logging::shows_values());
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("runtime", error.to_string()))?
        .block_on(serve(&args, service, global))?;
    Ok(Report::silent())
}

pub(super) fn load_config(path: Option<&Path>) -> Result<ServerConfig, Failure> {
    let Some(path) = path else {
        return Ok(ServerConfig::default());
    };
    ServerConfig::load(path).map_err(|error| {
        Failure::new("bad-config", error.to_string())
            .hint("correct the file given with --config; nothing was done")
    })
}

async fn serve(
    args: &Args,
    service: Service<SqliteStorage>,
    global: &Global,
) -> Result<(), Failure> {
    let mut stop = Stop::listen().map_err(|error| Failure::new("signals", error.to_string()))?;
    let listen = args.listen.as_str();
    let exposition = match &args.metrics {
        Some(address) => Some(Exposition::listen(address).await?),
        None => None,
    };
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| listen_failure(listen, &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| listen_failure(listen, &error))?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "tokens and data travel unprotected on this address: let a proxy with TLS stand before it"
        );
    }
    let url = format!("http://{address}");
    match global.json {
        true => report::line(&json!({ "listening": url }).to_string()),
        false => report::line(&format!("listening on {url}")),
    }
    if let Some(exposition) = exposition {
        exposition.tell(global.json);
        tokio::spawn(exposition.serve(Box::new(|| {})));
    }
    syncline_server::serve(
        listener,
        Arc::new(service),
        async move { stop.wait().await },
    )
    .await
    .map_err(|error| Failure::new("listener", format!("serving {url} failed: {error}")))?;
    tracing::info!("stopped");
    Ok(())
}

pub(super) fn storage_failure(error: OpenError) -> Failure {
    let message = error.to_string();
    match error {
        OpenError::InUse { .. } => Failure::new("data-in-use", message)
            .hint("stop that server first, or give this one a directory of its own"),
        OpenError::File { .. } => Failure::new("data-directory", message)
            .hint("--data names a directory of the server's own, which this user may write"),
        OpenError::Newer { .. } => {
            Failure::new("newer-data", message).hint("use a newer syncline; nothing was changed")
        }
        OpenError::Foreign => Failure::new("data-directory", message)
            .hint("--data names a directory of the server's own; nothing was changed"),
        _ => Failure::new("data-directory", message).hint("nothing was changed"),
    }
}

fn listen_failure(listen: &str, error: &io::Error) -> Failure {
    let failure = Failure::new(
        "cannot-listen",
        format!("cannot listen on {listen}: {error}"),
    );
    match error.kind() {
        ErrorKind::AddrInUse => failure
            .hint("another program listens there: stop it, or take another port (--listen 127.0.0.1:0 picks a free one)"),
        ErrorKind::PermissionDenied => failure.hint("ports below 1024 need special rights; take a higher one"),
        _ => failure.hint("give an address of this machine and a port, such as 127.0.0.1:8470"),
    }
}

pub(super) fn address(text: &str) -> Result<String, String> {
    let usable = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match usable {
        true => Ok(text.to_owned()),
        false => Err("give an address and a port, such as 127.0.0.1:8470".to_owned()),
    }
}
