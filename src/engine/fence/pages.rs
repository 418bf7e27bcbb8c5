//! All keys of a server, page by page.
//!
//! A page's cursor is known when the page before it has come, so each costs a round trip: over a slow line pages of a fixed
//! size would take minutes. So a page holds as many keys as the server can look at in a twentieth of what the way there and
//! back takes, and never more than it looks at in some 24 ms.

use super::in_db;
use crate::engine::net::{Control, NetError};
use std::time::{Duration, Instant};

/// Keys to a page for each millisecond that the page before took: servers look at some 4,000 in one.
const EACH_MS: u64 = 200;
const MOST: u64 = 98_304;

#[derive(Debug)]
pub struct Pages {
    least: u64,
    count: u64,
}

impl Pages {
    /// The first holds this many, and none holds fewer.
    pub const fn of(least: u64) -> Pages {
        Pages { least, count: least }
    }

    /// One page of a database's keys, our own among them, and the cursor of the next; 0 begins and ends.
    pub async fn next(&mut self, control: &mut Control, db: u32, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), NetError> {
        let (asked, count) = (Instant::now(), self.count);
        let (page,): ((u64, Vec<Vec<u8>>),) = in_db(control, db, |pipe| {
            pipe.cmd("SCAN").arg(cursor).arg("COUNT").arg(count);
        })
        .await?;
        self.took(asked.elapsed());
        Ok(page)
    }

    /// The way there and back takes so long.
    pub fn took(&mut self, took: Duration) {
        self.count = (took.as_millis() as u64 * EACH_MS).clamp(self.least, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_large_as_its_way_is_long() {
        let mut pages = Pages::of(1_000);
        for (ms, count) in
            [(0, 1_000), (4, 1_000), (60, 12_000), (400, 80_000), (600, MOST), (1, 1_000), (90_000, MOST)]
        {
            pages.took(Duration::from_millis(ms));
            assert_eq!(pages.count, count, "{ms} ms");
        }
    }
}
