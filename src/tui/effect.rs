//! What the console wants done. `update` returns these and does none of them itself.

use super::{
    msg::Tag,
    store::{Draft, Inventory},
};
use crate::control::protocol::Request;

#[derive(Debug, Clone)]
pub enum Effect {
    /// Sends a request; its answers come back as `Msg::Reply` with this tag. One with the same tag that is still
    /// under way is cancelled.
    Send {
        tag: Tag,
        request: Box<Request>,
    },
    /// Ends the request with this tag.
    Cancel(Tag),
    /// Starts an engine where none runs.
    StartEngine,
    SaveInventory(Inventory),
    SaveDraft(Box<Draft>),
    DeleteDraft(String),
    /// Writes `config/jobs/NAME.toml`, 0600.
    WriteJob {
        name: String,
        toml: String,
    },
    /// Writes lines to a file of its own in the state folder.
    Export {
        name: String,
        lines: Vec<String>,
    },
    /// Keeps language and theme for the next time.
    SaveSettings {
        lang: String,
        theme: String,
    },
    /// Whether the terminal reports the mouse.
    Mouse(bool),
    /// Draws all of it again.
    Redraw,
    Suspend,
    Quit,
}

impl Effect {
    pub fn send(tag: Tag, request: Request) -> Effect {
        Effect::Send { tag, request: Box::new(request) }
    }
}
