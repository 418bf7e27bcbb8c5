//! Frames: a 4-byte big-endian length and that many bytes of JSON.

use super::protocol::MAX_FRAME;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Frames over a byte stream.
pub type Frames<S> = Framed<S, LengthDelimitedCodec>;

/// Cuts a byte stream into frames of at most [`MAX_FRAME`] bytes.
pub fn frames<S: AsyncRead + AsyncWrite>(stream: S) -> Frames<S> {
    LengthDelimitedCodec::builder().length_field_length(4).max_frame_length(MAX_FRAME).new_framed(stream)
}

/// A message as the content of one frame.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Bytes> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    if bytes.len() > MAX_FRAME {
        return Err(io::Error::other(format!("a message of {} bytes is longer than {MAX_FRAME}", bytes.len())));
    }
    Ok(bytes.into())
}

/// The message in the content of one frame.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> io::Result<T> {
    serde_json::from_slice(frame).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
