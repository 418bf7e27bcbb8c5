//! Asks the other site which keys it holds, over a connection that is made when the first is asked for.

use super::space::{self, Space};
use crate::engine::fence::in_db;
use crate::engine::fence::pages::Pages;
use crate::engine::net::{Control, Dialer, NetError};
use bytes::Bytes;
use std::time::Instant;

/// Keys that a SCAN is asked for at least: under a millisecond of a server's time.
const PAGE: u64 = 1000;

pub struct Peer {
    dialer: Dialer,
    address: String,
    /// A transaction there has one slot.
    cluster: bool,
    control: Option<Control>,
    pages: Pages,
}

impl Peer {
    pub fn new(dialer: Dialer, address: String, cluster: bool) -> Self {
        Peer { dialer, address, cluster, control: None, pages: Pages::of(PAGE) }
    }

    /// Those of the keys that exist there at this moment. What is created later is a concurrent change, which the
    /// arbiter settles.
    pub async fn held(&mut self, keys: Vec<(u32, Bytes)>) -> Result<Vec<(u32, Bytes)>, NetError> {
        let mut control = self.dialled().await?;
        let mut held = Vec::new();
        let mut rest = &keys[..];
        while let Some((db, _)) = rest.first() {
            let alike = if self.cluster { 1 } else { rest.iter().take_while(|k| k.0 == *db).count() };
            let (one, others) = rest.split_at(alike);
            let found: Vec<i64> = in_db(&mut control, *db, |pipe| {
                for (_, key) in one {
                    pipe.cmd("EXISTS").arg(&key[..]);
                }
            })
            .await?;
            held.extend(one.iter().zip(found).filter(|(_, n)| *n > 0).map(|(k, _)| k.clone()));
            rest = others;
        }
        self.control = Some(control);
        Ok(held)
    }

    /// The databases that hold keys.
    pub async fn databases(&mut self) -> Result<Vec<u32>, NetError> {
        let mut control = self.dialled().await?;
        let asked = Instant::now();
        let info = control.info().await?;
        self.pages.took(asked.elapsed());
        self.control = Some(control);
        Ok(info.keyspace.iter().map(|k| k.db).collect())
    }

    /// A page of a database's keys, and the cursor of the next; 0 begins and ends.
    pub async fn scan(&mut self, db: u32, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), NetError> {
        let mut control = self.dialled().await?;
        let page = self.pages.next(&mut control, db, cursor).await?;
        self.control = Some(control);
        Ok(page)
    }

    /// Space for a string of that length, where there can be.
    pub async fn makes_space(&self, length: u64) -> Option<Space> {
        space::make(&self.dialer, &self.address, length).await
    }

    async fn dialled(&mut self) -> Result<Control, NetError> {
        match self.control.take() {
            Some(control) => Ok(control),
            None => self.dialer.control(&self.address).await,
        }
    }
}
