//! The connection to the engine as the loop sees it: one task keeps it up, one task a request carries its answers.

use super::{Connect, StartEngine, down};
use crate::{
    control::{
        client::{Client, ClientError, SLOW},
        protocol::{Failure, FailureKind, Reply, Request},
    },
    tui::msg::{EngineMsg, Msg, Tag},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::{sleep, timeout},
};

/// Between two attempts to reach an engine that is gone.
const RETRY: Duration = Duration::from_secs(1);

/// What a task tells the loop.
pub enum Heard {
    /// A connection stands.
    Up(Client),
    Say(Msg),
    /// An answer of the request with this number.
    Answer {
        number: u64,
        tag: Tag,
        reply: Box<Reply>,
        last: bool,
    },
    Lost {
        number: u64,
        tag: Tag,
    },
}

/// The requests under way.
pub struct Requests {
    client: Option<Client>,
    tasks: HashMap<Tag, (u64, AbortHandle)>,
    number: u64,
    tell: mpsc::Sender<Heard>,
    starter: Option<StartEngine>,
    /// Wakes the task that connects.
    wake: Arc<Notify>,
    /// Tells it that a request was lost with the connection.
    lost: Arc<Notify>,
    keeper: AbortHandle,
}

impl Requests {
    pub fn new(connect: Connect, starter: Option<StartEngine>, tell: mpsc::Sender<Heard>) -> Requests {
        let wake = Arc::new(Notify::new());
        let lost = Arc::new(Notify::new());
        let keeper = keep_connected(connect, starter.clone(), tell.clone(), wake.clone(), lost.clone());
        let keeper = tokio::spawn(keeper).abort_handle();
        Requests { client: None, tasks: HashMap::new(), number: 0, tell, starter, wake, lost, keeper }
    }

    /// Turns what a task told into a message for `update`; late answers of replaced requests are none.
    pub fn heard(&mut self, heard: Heard) -> Option<Msg> {
        match heard {
            Heard::Up(client) => {
                let engine = client.engine().clone();
                self.client = Some(client);
                Some(Msg::Engine(EngineMsg::Up { pid: engine.pid, engine_version: engine.version }))
            }
            Heard::Say(msg) => Some(msg),
            Heard::Answer { number, tag, reply, last } => self.is_present(&tag, number).then(|| {
                if last {
                    self.tasks.remove(&tag);
                }
                Msg::Reply { tag, reply, last }
            }),
            Heard::Lost { number, tag } => {
                self.lost.notify_one();
                self.is_present(&tag, number).then(|| {
                    self.tasks.remove(&tag);
                    Msg::Lost { tag }
                })
            }
        }
    }

    fn is_present(&self, tag: &Tag, number: u64) -> bool {
        self.tasks.get(tag).is_some_and(|(n, _)| *n == number)
    }

    pub fn send(&mut self, tag: Tag, request: Request) {
        self.cancel(&tag);
        self.number += 1;
        let task = carry(self.client.clone(), self.number, tag.clone(), request, self.tell.clone());
        self.tasks.insert(tag, (self.number, tokio::spawn(task).abort_handle()));
    }

    /// Ends a request; the engine is told when its answers are dropped.
    pub fn cancel(&mut self, tag: &Tag) {
        if let Some((_, task)) = self.tasks.remove(tag) {
            task.abort();
        }
    }

    /// Starts an engine; `false` where this console can't.
    pub fn start_engine(&mut self) -> bool {
        let Some(starter) = self.starter.clone() else { return false };
        let (tell, wake) = (self.tell.clone(), self.wake.clone());
        tokio::spawn(async move {
            start(&starter, &tell).await;
            wake.notify_one();
        });
        true
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.keeper.abort();
        for (_, task) in self.tasks.values() {
            task.abort();
        }
    }
}

async fn start(starter: &StartEngine, tell: &mpsc::Sender<Heard>) -> bool {
    let _ = tell.send(Heard::Say(Msg::Engine(EngineMsg::Starting))).await;
    match starter().await {
        Ok(()) => true,
        Err(why) => {
            let _ = tell.send(Heard::Say(down(why))).await;
            false
        }
    }
}

/// Connects, and again after each loss. The first time, an engine is started where none runs; later that is left to
/// the operator, who may have stopped it on purpose.
async fn keep_connected(
    connect: Connect,
    starter: Option<StartEngine>,
    tell: mpsc::Sender<Heard>,
    wake: Arc<Notify>,
    lost: Arc<Notify>,
) {
    let mut first = true;
    loop {
        match connect().await {
            Ok(client) => {
                first = false;
                if tell.send(Heard::Up(client.clone())).await.is_err() {
                    return;
                }
                while !client.is_lost() {
                    lost.notified().await;
                }
                let why = ClientError::Lost.to_string();
                if tell.send(Heard::Say(down(why))).await.is_err() {
                    return;
                }
                continue;
            }
            Err(ClientError::NoEngine { .. }) if first && starter.is_some() => {
                first = false;
                if let Some(starter) = &starter
                    && start(starter, &tell).await
                {
                    continue;
                }
            }
            Err(error) => {
                let msg = match &error {
                    ClientError::Version { message, remedy } => Msg::Engine(EngineMsg::Refused(Failure {
                        kind: FailureKind::Version,
                        message: message.clone(),
                        remedy: remedy.clone(),
                    })),
                    ClientError::Refused(failure) => Msg::Engine(EngineMsg::Refused(failure.clone())),
                    other => down(other.to_string()),
                };
                if tell.send(Heard::Say(msg)).await.is_err() {
                    return;
                }
            }
        }
        // an engine that comes back is found by looking again; a start wakes us at once
        tokio::select! {
            () = sleep(RETRY) => {}
            () = wake.notified() => {}
        }
    }
}

/// Sends one request and passes its answers on.
async fn carry(client: Option<Client>, number: u64, tag: Tag, request: Request, tell: mpsc::Sender<Heard>) {
    let endless = matches!(request, Request::Watch { .. } | Request::Events { .. });
    let Some(client) = client else {
        let _ = tell.send(Heard::Lost { number, tag }).await;
        return;
    };
    let mut replies = match client.request(request).await {
        Ok(replies) => replies,
        Err(_) => {
            let _ = tell.send(Heard::Lost { number, tag }).await;
            return;
        }
    };
    loop {
        let next = if endless { Ok(replies.next().await) } else { timeout(SLOW, replies.next()).await };
        let heard = match next {
            Ok(None) => return,
            Ok(Some(Ok(reply))) => {
                Heard::Answer { number, tag: tag.clone(), reply: Box::new(reply), last: replies.is_ended() }
            }
            Ok(Some(Err(ClientError::Lost))) => Heard::Lost { number, tag: tag.clone() },
            Ok(Some(Err(error))) => Heard::Answer {
                number,
                tag: tag.clone(),
                reply: Box::new(Reply::Error { error: error.to_failure() }),
                last: true,
            },
            Err(_) => {
                let error = ClientError::Timeout { what: "get an answer of the engine", after: SLOW }.to_failure();
                Heard::Answer { number, tag: tag.clone(), reply: Box::new(Reply::Error { error }), last: true }
            }
        };
        let over = !matches!(heard, Heard::Answer { last: false, .. });
        if tell.send(heard).await.is_err() || over {
            return;
        }
    }
}
