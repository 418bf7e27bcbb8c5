//! A connection to the site: lost, dialled again, and what the site says was applied meanwhile.

use super::{End, Writer};
use crate::engine::apply::transaction::Outcome;
use crate::engine::gauge::Condition;
use crate::engine::net::{Conversation, NetError, RawStream, ServerInfo, Token};
use crate::model::{EventKind, Severity};
use std::time::Duration;

/// How long what was sent through a proxy may still be on its way when the connection is gone.
const AT_REST: Duration = Duration::from_secs(1);

impl Writer {
    pub(super) fn lost(&self, why: String) {
        self.s.trouble.notify_one();
        let fresh = self.s.gauge.set_condition(Condition::Reconnecting { why: why.clone() });
        if fresh {
            self.s.gauge.reconnected();
            self.s.events.emit(
                Some(self.s.direction),
                Severity::Warning,
                EventKind::Disconnected,
                format!("writing: {why}; trying again"),
            );
        }
    }

    /// Dials; on a reconnect makes sure that the old connection is dead and learns what it applied.
    pub(super) async fn open(&mut self, first: bool) -> Result<Result<RawStream, End>, NetError> {
        if !first && let Err(end) = self.reconcile().await? {
            return Ok(Err(end));
        }
        let mut talk = self.s.dialer.conversation(&self.s.address).await?;
        if self.has_new_history(&mut talk).await? {
            return Ok(Err(End::WentBack));
        }
        if !self.s.envelope.names.is_cluster() && self.s.envelope.db != 0 {
            let db = self.s.envelope.db.to_string();
            talk.ask(&[b"SELECT", db.as_bytes()], Duration::from_secs(10)).await?;
        }
        Ok(Ok(talk.into_parts().0))
    }

    /// Behind this address (a name, a virtual one) is another server than before, or the same with another past. What
    /// that means for the positions has to be looked at before anything is written.
    async fn has_new_history(&self, talk: &mut Conversation) -> Result<bool, NetError> {
        let known = *self.s.replids[self.site.index()].read().unwrap_or_else(|p| p.into_inner());
        // A proxy is asked by no name of its own.
        let Some(known) = known.filter(|_| !self.s.one_at_a_time) else { return Ok(false) };
        let answer = talk.ask(&[b"INFO", b"replication"], self.s.dialer.deadlines().response).await?;
        let Token::Bulk(text) = answer else { return Ok(false) };
        let now = ServerInfo::parse(&String::from_utf8_lossy(&text)).replid;
        Ok(now.is_some_and(|now| now != known))
    }

    async fn reconcile(&mut self) -> Result<Result<(), End>, NetError> {
        let apply = self.s.dialer.client_name();
        let asking = self.s.dialer.named(&apply.replacen(":apply", ":control", 1));
        let mut control = asking.control(&self.s.address).await?;
        if self.s.one_at_a_time {
            // The connection can't be ended there: what was on its way has come through by then, or never does.
            tokio::time::sleep(AT_REST).await;
        } else {
            crate::engine::fence::kill_clients(&mut control, &[apply]).await?;
        }
        let names = &self.s.envelope.names;
        let key = crate::engine::fence::read_position(&mut control, self.s.envelope.db, names).await?;
        let Some(key) = key else {
            return Ok(if self.number == 0 { Ok(()) } else { Err(End::Gone) });
        };
        if key.epoch > self.s.epoch {
            return Ok(Err(End::Fenced));
        }
        if key.epoch < self.s.epoch || key.number < self.acked {
            return Ok(Err(End::WentBack));
        }
        // Applied, but their replies are lost: what failed in them has to be found by the keys.
        while self.window.front().is_some_and(|t| t.control.number <= key.number) {
            let Some(t) = self.window.pop_front() else { break };
            self.window_bytes -= t.bytes;
            self.unseen(&t);
            self.answered(&t);
        }
        for t in &mut self.window {
            t.outcome = Outcome::Pending;
        }
        self.tell_answered();
        Ok(Ok(()))
    }
}
