//! What a shard may be told that it is applied: the least of what its strands have applied.

use crate::model::Offset;
use futures::future::select_all;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The strands move on thousands of times a second; the shard is told some times.
const PAUSE: Duration = Duration::from_millis(10);

/// Follows all of them.
pub fn lowest(mut applied: Vec<watch::Receiver<Offset>>) -> (watch::Receiver<Offset>, JoinHandle<()>) {
    let least = |applied: &mut Vec<watch::Receiver<Offset>>| {
        applied.iter_mut().map(|one| *one.borrow_and_update()).min().unwrap_or_default()
    };
    let (tell, lowest) = watch::channel(least(&mut applied));
    let task = tokio::spawn(async move {
        loop {
            let now = least(&mut applied);
            tell.send_if_modified(|before| std::mem::replace(before, now) != now);
            let changes = applied.iter_mut().map(|one| Box::pin(one.changed()));
            let (changed, ..) = select_all(changes).await;
            if changed.is_err() {
                // A strand has ended, and with it the run.
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    (lowest, task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_slowest_tells() {
        let (a, b) = (watch::channel(Offset(5)), watch::channel(Offset(3)));
        let (mut lowest, task) = lowest(vec![a.1, b.1]);
        assert_eq!(*lowest.borrow_and_update(), Offset(3));
        b.0.send_replace(Offset(9));
        lowest.changed().await.unwrap();
        assert_eq!(*lowest.borrow_and_update(), Offset(5));
        a.0.send_replace(Offset(7));
        lowest.changed().await.unwrap();
        assert_eq!(*lowest.borrow_and_update(), Offset(7));
        drop(a.0);
        task.await.unwrap();
    }
}
