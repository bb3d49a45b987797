//! Asking the server what it has: `GET /v1/digest`. In hashes for a comparison outside of the state
//! machine, which does not know of it; single entities also for what the machine is about to send.

use crate::HttpRemote;
use crate::request::Request;
use syncline_core::{Fetched, PageChange, RemoteError, Wanted};
use syncline_protocol::{
    ClientId, DigestChanges, DigestEntities, DigestRanges, EntityId, EntityType, Hello, Scope,
};

/// What a digest is asked of.
#[derive(Debug, Clone, Copy)]
pub struct DigestOf<'a> {
    /// This installation.
    pub client: &'a ClientId,
    /// The scope that is compared.
    pub scope: &'a Scope,
    /// The type that is compared.
    pub entity_type: &'a EntityType,
    /// The fields that are compared.
    pub fields: &'a [String],
}

impl HttpRemote {
    /// Who am I to you, and within which limits?
    pub async fn hello(&self, client: &ClientId) -> Result<Hello, RemoteError> {
        self.ask(client, Request::hello(&self.base)).await
    }

    /// The hashes of the ranges behind an id.
    pub async fn digest_ranges(
        &self,
        of: DigestOf<'_>,
        after: Option<&EntityId>,
    ) -> Result<DigestRanges, RemoteError> {
        let request = Request::digest(&self.base, of, after, None);
        self.ask(of.client, request).await
    }

    /// The entities from behind an id to another.
    pub async fn digest_entities(
        &self,
        of: DigestOf<'_>,
        after: Option<&EntityId>,
        until: &EntityId,
    ) -> Result<DigestEntities, RemoteError> {
        let request = Request::digest(&self.base, of, after, Some(until));
        self.ask(of.client, request).await
    }

    /// Entities in full; at most [`DIGEST_IDS`](syncline_protocol::DIGEST_IDS).
    pub async fn digest_changes(
        &self,
        of: DigestOf<'_>,
        ids: &[EntityId],
    ) -> Result<DigestChanges, RemoteError> {
        let request = Request::digest_changes(&self.base, of, ids);
        self.ask(of.client, request).await
    }

    /// What the state machine wants to know of entities before it sends mutations of them.
    pub(crate) async fn fetch(
        &self,
        client: &ClientId,
        scope: &Scope,
        wanted: &Wanted,
    ) -> Result<Fetched, RemoteError> {
        let of = DigestOf {
            client,
            scope,
            entity_type: &wanted.entity_type,
            fields: &[],
        };
        let request = Request::digest_changes(&self.base, of, &wanted.ids);
        let (digest, bytes): (DigestChanges, _) = self.ask_counted(client, request).await?;
        Ok(Fetched {
            epoch: digest.epoch,
            position: digest.position,
            changes: digest.changes.into_iter().map(PageChange::Valid).collect(),
            bytes,
        })
    }
}
