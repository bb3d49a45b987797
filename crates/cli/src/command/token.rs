//! `syncline token`: a signed token for a person or device.

use crate::{Failure, Global, Report, database, secret, span};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use syncline::protocol::Principal;
use syncline_protocol::Access as Granted;
use syncline_server::{Identity, Now, issue_token};

/// Print a signed token, alone on stdout
///
/// Works beside a running server. Whoever has the token is its subject, until it expires.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's data directory; created if missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Who the token is for
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// Whose data: tenants never see each other's
    #[arg(long, value_name = "NAME", default_value = "default")]
    tenant: String,
    /// How long it is valid, such as 12h or 30d
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = span::parse)]
    ttl: Duration,
    /// What it allows
    #[arg(long, value_name = "RIGHT", default_value = "write")]
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Access {
    /// Pull only
    Read,
    /// Pull and push
    Write,
}

pub(crate) fn run(args: Args, _global: &Global) -> Result<Report, Failure> {
    let lifetime_s = u32::try_from(args.ttl.as_secs()).unwrap_or(u32::MAX);
    if lifetime_s == 0 {
        return Err(Failure::usage(
            "bad-ttl",
            "a token is valid for at least one second",
        ));
    }
    let secret = secret::load(&args.data)?;
    let identity = Identity {
        principal: Principal {
            tenant: args.tenant,
            subject: args.subject,
        },
        access: match args.access {
            Access::Read => Granted::Read,
            Access::Write => Granted::Write,
        },
    };
    let now_ms = database::now().unix_ms;
    let token = issue_token(
        &secret.bytes,
        &identity,
        Now::from_unix_ms(now_ms),
        lifetime_s,
    )
    .map_err(|error| {
        Failure::usage("bad-name", error.to_string())
            .hint("--subject and --tenant name who the token is for and whose data it opens")
    })?;
    if secret.is_new {
        tracing::warn!(
            directory = %args.data.display(),
            "a new secret was made: only a server over this directory takes the token"
        );
    }
    let expires_at = now_ms.saturating_add(i64::from(lifetime_s) * 1_000);
    let Principal { tenant, subject } = &identity.principal;
    let json = json!({
        "token": token, "subject": subject, "tenant": tenant,
        "access": identity.access, "expires_at": expires_at,
    });
    Report::new(token, &json)
}
