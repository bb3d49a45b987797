//! Spans for OpenTelemetry, sent as OTLP over HTTP in JSON: only with the feature `otel`, and only
//! when `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector.
//!
//! A span is one request: at the device from its sending to its answer, at the server while it is
//! handled; the way of each mutation is its events. They say what log lines at level debug say, no
//! more. Telling never holds the work up: what the collector does not take in time is dropped. This is
//! all that is needed of OpenTelemetry here, and its own packages would be thirty.

use serde_json::{Value, json};
use std::fmt::Debug;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use syncline_protocol::TraceParent;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SERVICE: &str = "OTEL_SERVICE_NAME";

/// Spans that wait to be sent; more are dropped.
const MOST_WAITING: usize = 4096;
/// Spans in one message.
const MOST_AT_ONCE: usize = 256;
/// Events that are kept of a span.
const MOST_EVENTS: usize = 1024;
/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// The longest that the collector may take, and that the end of the process waits for it.
const LONGEST: Duration = Duration::from_secs(5);

/// Takes spans in.
pub(crate) struct Spans {
    sender: SyncSender<Value>,
    /// Whoever started the command.
    above: Option<TraceParent>,
}

/// Sends what is left when it is dropped.
pub(crate) struct Sending {
    thread: Option<JoinHandle<()>>,
    stop: SyncSender<Value>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        // Full: then it is at work, and notices the end of the process.
        let _ = self.stop.try_send(Value::Null);
        let deadline = Instant::now() + LONGEST;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Begins to send, if the environment says where to.
pub(crate) fn start() -> Option<(Spans, Sending)> {
    let endpoint = std::env::var(ENDPOINT).ok().filter(|url| !url.is_empty())?;
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let headers = std::env::var(HEADERS).unwrap_or_default();
    let service = std::env::var(SERVICE).unwrap_or_else(|_| "syncline".to_owned());
    let above = std::env::var("TRACEPARENT").ok();
    let (sender, receiver) = sync_channel(MOST_WAITING);
    let thread = std::thread::Builder::new().name("otlp".to_owned());
    let thread = thread.spawn(move || send_all(&url, &headers, &service, &receiver));
    let spans = Spans {
        sender: sender.clone(),
        above: above.and_then(|above| TraceParent::parse(&above)),
    };
    let sending = Sending {
        thread: thread.ok(),
        stop: sender,
    };
    Some((spans, sending))
}

/// A span that is not closed yet.
struct Open {
    trace: String,
    span: String,
    parent: Option<String>,
    begun: u128,
    attributes: Vec<Value>,
    events: Vec<Value>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let Some(span) = context.span(id) else {
            return;
        };
        let above = span.parent().and_then(|parent| {
            let extensions = parent.extensions();
            let open = extensions.get::<Open>()?;
            Some((open.trace.clone(), open.span.clone()))
        });
        let trace = fields.trace.or_else(|| Some(above.as_ref()?.0.clone()));
        let trace = trace.unwrap_or_else(|| random() + &random());
        let caller = self
            .above
            .filter(|caller| caller.trace_id().to_string() == trace);
        let caller = caller.map(|caller| caller.span_id().to_string());
        let open = Open {
            span: fields.span.unwrap_or_else(random),
            parent: fields.parent.or(above.map(|above| above.1)).or(caller),
            trace,
            begun: now(),
            attributes: fields.attributes,
            events: Vec::new(),
        };
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            open.attributes.append(&mut fields.attributes);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(span) = context.event_span(event) else {
            return;
        };
        let mut extensions = span.extensions_mut();
        let open = extensions.get_mut::<Open>();
        let Some(open) = open.filter(|open| open.events.len() < MOST_EVENTS) else {
            return;
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        open.events.push(json!({
            "timeUnixNano": now().to_string(), "name": fields.message, "attributes": fields.attributes,
        }));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else {
            return;
        };
        let Some(open) = span.extensions_mut().remove::<Open>() else {
            return;
        };
        let kind = match span.metadata().target() {
            target if target.starts_with("syncline_server") => 2,
            target if target.starts_with("syncline_remote") => 3,
            _ => 1,
        };
        // When too many wait it is dropped.
        let _ = self.sender.try_send(json!({
            "traceId": open.trace, "spanId": open.span, "parentSpanId": open.parent.unwrap_or_default(),
            "name": span.name(), "kind": kind, "startTimeUnixNano": open.begun.to_string(),
            "endTimeUnixNano": now().to_string(), "attributes": open.attributes, "events": open.events,
        }));
    }
}

/// What a span or an event says.
#[derive(Default)]
struct Fields {
    message: String,
    trace: Option<String>,
    span: Option<String>,
    parent: Option<String>,
    attributes: Vec<Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        self.attributes
            .push(json!({ "key": field.name(), "value": value }));
    }

    fn text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            "trace" => self.trace = Some(text),
            "span" => self.span = Some(text),
            "parent" => self.parent = Some(text),
            _ => self.add(field, json!({ "stringValue": text })),
        }
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, json!({ "intValue": value.to_string() }));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, json!({ "intValue": value.to_string() }));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, json!({ "boolValue": value }));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format!("{value:?}"));
    }
}

fn send_all(url: &str, headers: &str, service: &str, spans: &Receiver<Value>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    // An error means that the process has chosen a provider before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(LONGEST).build();
    let (Ok(runtime), Ok(client)) = (runtime, client) else {
        return tracing::warn!("no spans can be sent");
    };
    let resource = json!({ "attributes": [
        { "key": "service.name", "value": { "stringValue": service } },
        { "key": "service.version", "value": { "stringValue": env!("CARGO_PKG_VERSION") } },
    ] });
    let mut going_on = true;
    while going_on {
        let (batch, more) = gather(spans);
        going_on = more;
        if batch.is_empty() {
            continue;
        }
        let scope = json!({ "scope": { "name": "syncline" }, "spans": batch });
        let body = json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [scope] }] });
        let mut request = client.post(url).header("content-type", "application/json");
        for (name, value) in headers
            .split(',')
            .filter_map(|header| header.split_once('='))
        {
            request = request.header(name.trim(), value.trim());
        }
        let request = request.body(body.to_string());
        let sent = runtime.block_on(async move { request.send().await });
        let failed = match sent {
            Ok(answer) => (!answer.status().is_success()).then(|| answer.status().to_string()),
            Err(error) => Some(error.without_url().to_string()),
        };
        if let Some(error) = failed {
            tracing::debug!(error, "the collector does not take the spans");
        }
    }
}

/// The next spans, and whether there will be more.
fn gather(spans: &Receiver<Value>) -> (Vec<Value>, bool) {
    let mut batch = Vec::new();
    let Ok(first) = spans.recv() else {
        return (batch, false);
    };
    let deadline = Instant::now() + GATHER;
    let mut next = Ok(first);
    loop {
        match next {
            Ok(Value::Null) | Err(RecvTimeoutError::Disconnected) => return (batch, false),
            Err(RecvTimeoutError::Timeout) => return (batch, true),
            Ok(span) => batch.push(span),
        }
        if batch.len() >= MOST_AT_ONCE {
            return (batch, true);
        }
        next = spans.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_nanos()
}

/// 16 hexadecimal digits, never all zero.
fn random() -> String {
    format!("{:016x}", getrandom::u64().unwrap_or(1) | 1)
}
