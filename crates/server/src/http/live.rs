//! Keeps live streams open: one small task each, which turns news into events and silence into
//! heart-beats, and ends with the token, the server, or a reader who does not read.

use super::{App, HttpConfig, now};
use crate::api::live::event;
use crate::hub::{LiveBounds, Subscription};
use crate::{Request, Response, Storage};
use axum::body::Body;
use hyper::body::{Bytes, Frame};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep, sleep_until, timeout};

/// Longer than any token should live; a stream that reaches it is opened anew.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A comment: bytes that mean nothing but that the stream is alive.
const HEARTBEAT: &str = ": beat\n\n";

/// Opens the stream, or says why not.
pub(super) async fn open<S: Storage>(
    app: &Arc<App<S>>,
    request: Request,
) -> Result<(Response, Body), Response> {
    let bounds = LiveBounds {
        streams: app.config.live_streams,
        streams_per_principal: app.config.live_streams_per_principal,
    };
    let service = Arc::clone(&app.service);
    let asked = request.clone();
    let opening = tokio::task::spawn_blocking(move || service.listen(&request, bounds, now()));
    let (start, subscription) = match opening.await {
        Ok(opened) => opened?,
        Err(error) => return Err(super::broke_down(&app.service, &asked, &error)),
    };
    // Hyper takes frames as long as its own buffer has room; here wait no more than two.
    let (frames, receiver) = mpsc::channel(2);
    let (config, closing) = (app.config.clone(), app.closing.clone());
    tokio::spawn(tell(subscription, frames, config, closing));
    Ok((start, Body::new(Events(receiver))))
}

/// Tells what there is to tell until the stream ends.
async fn tell(
    mut subscription: Subscription,
    frames: mpsc::Sender<Bytes>,
    config: HttpConfig,
    mut closing: watch::Receiver<()>,
) {
    let remaining = Duration::from_millis(subscription.remaining_ms(now()));
    let expiry = Instant::now() + remaining.min(LONGEST);
    let mut next = event(subscription.head());
    let mut pace = Instant::now();
    loop {
        match timeout(config.stall_timeout, frames.send(Bytes::from(next))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return tracing::debug!("a live stream is not read: it is cut"),
        }
        // Sent or not, what comes within this time comes as one.
        pace = pace.max(Instant::now() + config.live_pace);
        let news = async {
            let more = subscription.news().await;
            sleep_until(pace).await;
            more
        };
        next = tokio::select! {
            more = news => match more {
                true => event(subscription.take()),
                false => return,
            },
            () = sleep(config.live_heartbeat) => HEARTBEAT.to_owned(),
            () = sleep_until(expiry) => return,
            _ = closing.changed() => return,
            () = frames.closed() => return,
        };
    }
}

/// Looks now and then where the heads are, for what other processes have written.
pub(super) async fn look_around<S: Storage>(app: Arc<App<S>>) {
    let mut ticks = tokio::time::interval(app.config.live_look.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let service = Arc::clone(&app.service);
        let look = tokio::task::spawn_blocking(move || crate::api::live::look_around(&service));
        match look.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, cause = error.cause(), "the heads cannot be read");
            }
            Err(_) => tracing::error!("a look at the heads did not come to its end"),
        }
    }
}

/// The body of a stream.
struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.poll_recv(context);
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
