//! Log lines on stderr, set up once per process. Only Syncline's own: what libraries say at these
//! levels could quote a header, and a header can be a token.

use tracing_subscriber::EnvFilter;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging: warnings, and more with each `-v`.
pub(crate) fn start(verbose: u8, form: Form) {
    let filter = EnvFilter::new(match verbose {
        0 => "error,syncline=warn",
        1 => "error,syncline=info",
        2 => "error,syncline=debug",
        _ => "error,syncline=trace",
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // An error means that the process logs already, which is as good.
    let _ = match form {
        Form::Text => builder.with_target(false).with_ansi(false).try_init(),
        Form::Json => builder.json().flatten_event(true).try_init(),
    };
}
