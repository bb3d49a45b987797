//! The pure core of Syncline.

mod batch;
mod remote;
mod time;

pub use batch::{Batch, BatchEntry, EntityRef};
pub use remote::{
    AnswerFuture, Page, PageChange, Remote, RemoteAnswer, RemoteError, RemoteRequest,
};
pub use time::Now;
