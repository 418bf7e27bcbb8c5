//! What the control server needs of an engine, and nothing more: the two meet in `cli`.

use super::protocol::{Reply, Request};
use std::{future::Future, pin::Pin};
use tokio::sync::mpsc;

/// Answers requests. Dropping the future cancels the request.
pub trait Service: Send + Sync + 'static {
    /// Handles one request; sends its replies, in order, into `replies`. The last one sent is the last answer.
    fn call(&self, request: Request, replies: mpsc::Sender<Reply>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
