//! Listening: a live stream from its opening to its end, within bounds.
//!
//! Some proxies hold a stream back until they have enough of it, or cut it when it is quiet. So the
//! first head has to come as soon as any answer, and silence beyond the heart-beat ends the stream.

use crate::HttpRemote;
use crate::answer::garbage;
use crate::events::EventReader;
use crate::request::Request;
use std::time::Duration;
use syncline_core::{Hear, ListenEnd, RemoteError};
use syncline_protocol::ClientId;
use tokio::time::Instant;

/// A stream brings a few hundred bytes a second at most; one that brings more than
/// [`FLOOD_BYTES`] within this time is no stream of hints.
const FLOOD_WINDOW: Duration = Duration::from_secs(10);
const FLOOD_BYTES: usize = 256 << 10;

impl HttpRemote {
    pub(crate) async fn live(&self, client: ClientId, hear: Hear) -> ListenEnd {
        let request = Request::live(&self.base);
        let mut call = self.begin(&request);
        let result = self.follow(&mut call, &client, request, hear).await;
        match self.end(call, result).await {
            Ok(()) => ListenEnd::Closed,
            Err(error) if is_no_such_call(&error) => ListenEnd::NotOffered,
            Err(error) => ListenEnd::Failed(error),
        }
    }

    /// Passes heads on until the stream ends.
    async fn follow(
        &self,
        call: &mut crate::remote::Call,
        client: &ClientId,
        request: Request,
        mut hear: Hear,
    ) -> Result<(), RemoteError> {
        let mut body = self.open(call, client, request).await?;
        let mut reader = EventReader::default();
        let mut piece = Vec::new();
        let mut window = Instant::now();
        let mut heard = false;
        body.allow(FLOOD_BYTES);
        body.within(self.bounds.progress_timeout);
        loop {
            let more = body.next(&mut piece).await;
            match more.map_err(|fault| call.fault(fault))? {
                true => {}
                false if heard => return Ok(()),
                false => {
                    let detail = "the stream ended before it told anything".to_owned();
                    return Err(garbage(call.status, detail));
                }
            }
            let mut pass_on = |head| {
                if !std::mem::replace(&mut heard, true) {
                    body.endless(self.bounds.live_silence);
                }
                hear(head);
            };
            let read = reader.read(&piece, &mut pass_on);
            read.map_err(|why| garbage(call.status, why))?;
            piece.clear();
            if window.elapsed() >= FLOOD_WINDOW {
                window = Instant::now();
                body.allow(FLOOD_BYTES);
            }
        }
    }
}

/// Whether the remote speaks with us but has no hints for us.
fn is_no_such_call(error: &RemoteError) -> bool {
    matches!(
        error,
        RemoteError::Misconfigured { .. }
            | RemoteError::Incompatible { .. }
            | RemoteError::Transient { status: 501, .. }
    )
}
