//! The spool against a plain model: what goes in comes out, in order, whatever is read, released and rewound.

use bytes::Bytes;
use proptest::prelude::*;
use redis_duplex::engine::spool::{Item, Spool, SpoolError, SpoolOptions, SpoolReader, SpoolWriter};
use redis_duplex::model::Offset;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

fn spool(dir: &Path, memory_bytes: u64, disk_bytes: u64) -> (SpoolWriter, SpoolReader) {
    Spool::new(SpoolOptions { memory_bytes, disk_bytes, dir: dir.to_owned() }).expect("the folder is ours")
}

fn stream(offset: u64, bytes: impl Into<Bytes>) -> Item {
    Item::Stream { offset: Offset(offset), bytes: bytes.into() }
}

/// Nothing here may take this long.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap_or_else(|_| panic!("{what}: not within 20 s"))
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Read,
    /// So many bytes of what was read before are left over.
    ReadBehind(usize),
    /// A part, in 256ths, of what is read and not released.
    Release(u8),
    Rewind(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..600).prop_map(Step::Push),
        3 => Just(Step::Read),
        3 => (0usize..900).prop_map(Step::ReadBehind),
        2 => any::<u8>().prop_map(Step::Release),
        1 => any::<u8>().prop_map(Step::Rewind),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The stream's byte at position p is a function of p: so every item can be judged alone.
    #[test]
    fn the_stream_comes_out_as_it_went_in(
        steps in prop::collection::vec(step(), 1..120),
        memory in 0u64..3_000,
        base in 0u64..1_000_000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut writer, mut reader) = spool(&dir.path().join("s"), memory, 1 << 30);
            let (mut written, mut read, mut released) = (base, base, base);
            let mut held: Vec<(u64, Bytes)> = Vec::new();
            let name: redis_duplex::model::ReplId = "a".repeat(40).parse().unwrap();
            writer.push(Item::NewReplid { replid: name, at: Offset(base) }).await.unwrap();
            assert!(matches!(reader.next().await.unwrap(), Item::NewReplid { .. }));
            for step in steps {
                match step {
                    Step::Push(len) => {
                        let bytes: Vec<u8> = (written..written + len as u64).map(byte_at).collect();
                        soon("push", writer.push(stream(written, bytes))).await.unwrap();
                        written += len as u64;
                    }
                    Step::Read if read < written => {
                        let item = match reader.try_next() {
                            Some(item) => item,
                            None => soon("next", reader.next()).await.unwrap(),
                        };
                        let Item::Stream { offset, bytes } = item else { panic!("{item:?}") };
                        assert_eq!(offset, Offset(read), "no gap and no byte twice");
                        assert!(!bytes.is_empty());
                        assert!(bytes.iter().zip(read..).all(|(b, at)| *b == byte_at(at)), "the bytes of {offset}");
                        read += bytes.len() as u64;
                    }
                    Step::ReadBehind(left) if read < written => {
                        let left = left.min((read - base) as usize);
                        let front: Bytes = (read - left as u64..read).map(byte_at).collect::<Vec<_>>().into();
                        let mut rest = front.clone();
                        let Item::Stream { offset, bytes } = soon("next", reader.next_behind(&mut rest)).await.unwrap()
                        else {
                            panic!("no stream")
                        };
                        // What is left over is where it was, or the item begins with it.
                        let first = if rest.is_empty() { read - left as u64 } else { read };
                        assert!(rest.is_empty() || rest == front);
                        assert_eq!(offset, Offset(first), "no gap and no byte twice");
                        assert!(bytes.iter().zip(first..).all(|(b, at)| *b == byte_at(at)), "the bytes of {offset}");
                        assert!(first + bytes.len() as u64 > read);
                        read = first + bytes.len() as u64;
                        // Held on to every other time: then their place must not be used again.
                        if left % 2 == 0 {
                            held.push((first, bytes.clone()));
                        }
                        reader.give_back(bytes);
                    }
                    Step::Read | Step::ReadBehind(_) => assert_eq!(reader.try_next(), None),
                    Step::Release(part) => {
                        released += (read - released) * u64::from(part) / 256;
                        reader.release(Offset(released));
                    }
                    Step::Rewind(part) => {
                        read = released + (read - released) * u64::from(part) / 256;
                        reader.rewind(Offset(read)).unwrap();
                        if released > base {
                            assert!(matches!(reader.rewind(Offset(released - 1)), Err(SpoolError::NotHeld { .. })));
                        }
                    }
                }
                let stats = reader.stats();
                assert_eq!((stats.written, stats.read, stats.released), (Offset(written), Offset(read), Offset(released)));
                assert!(stats.bytes_memory <= memory, "{stats:?}");
            }
            assert!(held.iter().all(|(first, bytes)| bytes.iter().zip(*first..).all(|(b, at)| *b == byte_at(at))));
            // When all is released, nothing is left.
            while read < written {
                let Item::Stream { bytes, .. } = soon("next", reader.next()).await.unwrap() else { panic!() };
                read += bytes.len() as u64;
            }
            reader.release(Offset(read));
            let stats = reader.stats();
            assert_eq!((stats.bytes_memory, stats.bytes_disk), (0, 0), "{stats:?}");
        });
    }
}

fn byte_at(position: u64) -> u8 {
    (position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

#[tokio::test]
async fn what_lies_in_a_file_gives_its_memory_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = spool(dir.path(), 1_000, 1 << 20);
    for (offset, len) in [(0, 500), (500, 4_000), (4_500, 4_000)] {
        writer.push(stream(offset, vec![7u8; len])).await.unwrap();
        match writer.take_spilled() {
            None => assert_eq!(offset, 0, "what fits is kept in memory"),
            Some(bytes) => assert_eq!(bytes.try_into_mut().map(|b| b.len()), Ok(len), "nobody else holds on to it"),
        }
    }
    let mut rest = Bytes::new();
    let item = reader.next_behind(&mut rest).await.unwrap();
    let Item::Stream { bytes, .. } = item else { panic!("{item:?}") };
    rest = bytes.slice(490..);
    let item = reader.next_behind(&mut rest).await.unwrap();
    let Item::Stream { offset, bytes } = item else { panic!("{item:?}") };
    assert_eq!((offset, rest.len()), (Offset(490), 0), "read in behind what was left over");
    assert!(bytes.len() == 8_010 && bytes.iter().all(|b| *b == 7));
}

#[tokio::test]
async fn a_full_disk_bound_makes_the_writer_wait_and_a_release_lets_it_go_on() {
    // Given a spool that holds nothing in memory and little on disk.
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = spool(dir.path(), 0, 8_000);
    let pusher = tokio::spawn(async move {
        for i in 0..40u64 {
            writer.push(stream(i * 1_000, vec![i as u8; 1_000])).await?;
        }
        Ok::<_, SpoolError>(writer)
    });
    // When nobody releases, it fills up.
    soon("full", async {
        while !reader.stats().full {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!pusher.is_finished());
    assert!(reader.stats().bytes_disk <= 8_000);
    // Then reading and releasing brings all of it, in order.
    let mut at = 0;
    while at < 40_000 {
        let Item::Stream { offset, bytes } = soon("next", reader.next()).await.unwrap() else { panic!() };
        assert_eq!(offset, Offset(at));
        assert!(bytes.iter().zip(at..).all(|(b, p)| u64::from(*b) == p / 1_000));
        at += bytes.len() as u64;
        reader.release(Offset(at));
    }
    soon("the writer ends", pusher).await.unwrap().unwrap();
    assert!(!reader.stats().full);
}

#[tokio::test]
async fn snapshot_bytes_need_no_release() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = spool(dir.path(), 2_000, 16_000);
    let replid = "b".repeat(40).parse().unwrap();
    let pusher = tokio::spawn(async move {
        writer.push(Item::SnapshotBegin { replid, offset: Offset(7), total: None }).await.unwrap();
        for i in 0..100u8 {
            writer.push(Item::Snapshot(vec![i; 1_000].into())).await.unwrap();
        }
        writer.push(Item::SnapshotEnd).await.unwrap();
        writer.push(stream(7, "abc")).await.unwrap();
    });
    let mut bytes = Vec::new();
    loop {
        match soon("next", reader.next()).await.unwrap() {
            Item::Snapshot(part) => bytes.extend_from_slice(&part),
            Item::SnapshotBegin { offset, .. } => assert_eq!(offset, Offset(7)),
            Item::SnapshotEnd => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes.len(), 100_000);
    assert!(bytes.chunks(1_000).enumerate().all(|(i, part)| part.iter().all(|b| usize::from(*b) == i)));
    assert_eq!(soon("next", reader.next()).await.unwrap(), stream(7, "abc"));
    pusher.await.unwrap();
    assert!(matches!(soon("the end", reader.next()).await, Err(SpoolError::Closed)));
    reader.release(Offset(10));
    assert_eq!((reader.stats().bytes_disk, reader.stats().bytes_memory), (0, 0));
}

#[tokio::test]
async fn after_lost_the_old_stream_is_gone_and_a_new_position_begins() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = spool(dir.path(), 1 << 20, 0);
    let replid = "c".repeat(40).parse().unwrap();
    writer.push(stream(900, "old")).await.unwrap();
    writer.push(Item::Lost { why: "cut".into() }).await.unwrap();
    writer.push(Item::NewReplid { replid, at: Offset(5) }).await.unwrap();
    writer.push(stream(5, "new")).await.unwrap();
    for _ in 0..3 {
        reader.next().await.unwrap();
    }
    assert_eq!(reader.next().await.unwrap(), stream(5, "new"));
    assert!(reader.rewind(Offset(901)).is_err());
    reader.rewind(Offset(6)).unwrap();
    assert_eq!(reader.next().await.unwrap(), stream(6, "ew"));
    reader.release(Offset(8));
    assert_eq!(reader.stats().bytes_memory, 0);
}

#[tokio::test]
async fn a_gap_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _reader) = spool(dir.path(), 1 << 20, 0);
    writer.push(stream(10, "abc")).await.unwrap();
    assert!(matches!(writer.push(stream(14, "x")).await, Err(SpoolError::Gap { .. })));
    writer.push(stream(13, "x")).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_fails_is_told_and_nothing_is_lost() {
    // Given a folder that is taken away.
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("spool");
    let (mut writer, mut reader) = spool(&dir, 0, 1 << 20);
    std::fs::remove_dir(&dir).unwrap();
    // When something has to be written.
    let pusher = tokio::spawn(async move { writer.push(stream(0, "kept")).await });
    let error = soon("an error", async {
        loop {
            if let Some(error) = reader.stats().disk_error {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Then the stats say what to do, and when it is done the item is there.
    assert!(error.contains("leave the spool's folder alone"), "{error}");
    std::fs::create_dir(&dir).unwrap();
    assert_eq!(soon("next", reader.next()).await.unwrap(), stream(0, "kept"));
    pusher.await.unwrap().unwrap();
    assert_eq!(reader.stats().disk_error, None);
}

#[tokio::test]
async fn files_are_ours_alone_and_go_away() {
    // Given a folder with a segment of an earlier run and somebody else's file.
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("spool");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("0000000009.segment"), "stale").unwrap();
    std::fs::write(dir.join("notes"), "mine").unwrap();
    let (mut writer, reader) = spool(&dir, 0, 1 << 20);
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["notes"]);
    // When something is written.
    writer.push(stream(0, "secret")).await.unwrap();
    // Then nobody else may read it.
    assert_eq!(names(), ["0000000001.segment", "notes"]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("0000000001.segment"))), (0o700, 0o600));
    // And it is gone with the spool.
    drop((writer, reader));
    assert_eq!(names(), ["notes"]);
}

#[tokio::test]
async fn files_are_written_to_again_within_the_bound_and_go_when_none_is_needed() {
    // Given a spool of which each file holds an eighth of what may lie on the disk.
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = spool(dir.path(), 1_000, 8_000);
    let on_disk = || {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap());
        files.map(|f| (f.file_name(), f.metadata().map(|m| m.len()).unwrap_or_default())).collect::<Vec<_>>()
    };
    let mut names = std::collections::HashSet::new();
    let (mut written, mut read) = (0, 0);
    for round in 0..50 {
        // When a backlog comes and goes, of items of any size.
        while written - read < 5_500 {
            let bytes: Vec<u8> = (written..written + fastrand::u64(100..900)).map(byte_at).collect();
            let len = bytes.len() as u64;
            soon("room", writer.push(stream(written, bytes))).await.unwrap();
            written += len;
            names.extend(on_disk().into_iter().map(|f| f.0));
            // What has been given up is removed a moment later.
            soon("no more than the bound is on the disk", async {
                while on_disk().iter().map(|f| f.1).sum::<u64>() > 8_000 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        while read < written {
            let Item::Stream { offset, bytes } = soon("next", reader.next()).await.unwrap() else { panic!() };
            assert_eq!(offset, Offset(read));
            assert!(bytes.iter().zip(read..).all(|(b, p)| *b == byte_at(p)), "round {round}: the bytes of {offset}");
            read += bytes.len() as u64;
            reader.release(Offset(read));
        }
        assert_eq!(reader.stats().bytes_disk, 0);
    }
    // Then few files were made, and they go with what comes when none has been needed for a while.
    assert!(names.len() < 100, "{} files for {written} bytes", names.len());
    soon("the files go", async {
        while !on_disk().is_empty() {
            writer.push(stream(written, "x")).await.unwrap();
            assert!(matches!(reader.next().await, Ok(Item::Stream { .. })));
            written += 1;
            reader.release(Offset(written));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_end_sees_the_other_go() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, mut reader) = spool(dir.path(), 1 << 20, 0);
    drop(writer);
    assert!(matches!(reader.next().await, Err(SpoolError::Closed)));
    let (mut writer, reader) = spool(dir.path(), 1, 0);
    writer.push(stream(0, "taken, since it is alone")).await.unwrap();
    let push = tokio::spawn(async move { writer.push(stream(24, "waits")).await });
    drop(reader);
    assert!(matches!(soon("push", push).await.unwrap(), Err(SpoolError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_at_full_speed_over_the_disk_lose_nothing() {
    // Given a spool without memory: neighbours are merged in the files while the reader is on its way to them.
    const TOTAL: u64 = 400_000;
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = spool(dir.path(), 0, 1 << 20);
    let pusher = tokio::spawn(async move {
        let mut at = 0;
        while at < TOTAL {
            let len = fastrand::u64(1..200).min(TOTAL - at);
            writer.push(stream(at, (at..at + len).map(byte_at).collect::<Vec<_>>())).await.unwrap();
            at += len;
        }
    });
    let mut at = 0;
    while at < TOTAL {
        let Item::Stream { offset, bytes } = soon("next", reader.next()).await.unwrap() else { panic!() };
        assert_eq!(offset, Offset(at), "no gap and no byte twice");
        assert!(bytes.iter().zip(at..).all(|(b, p)| *b == byte_at(p)), "the bytes of {offset}");
        at += bytes.len() as u64;
        reader.release(Offset(at));
    }
    pusher.await.unwrap();
    assert_eq!(reader.stats().bytes_disk, 0);
}

#[tokio::test]
async fn what_has_no_bytes_keeps_within_the_memory_too() {
    // Given a snapshot that fills the memory as far as it goes, whatever is left at its end.
    const MEMORY: u64 = 16 << 10;
    let name: redis_duplex::model::ReplId = "a".repeat(40).parse().unwrap();
    for last in (0..1_500usize).step_by(20) {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, reader) = spool(&dir.path().join("s"), MEMORY, 1 << 30);
        writer.push(Item::SnapshotBegin { replid: name, offset: Offset(1), total: None }).await.unwrap();
        for len in [vec![1_000; 13], vec![last; 2]].concat() {
            soon("push", writer.push(Item::Snapshot(vec![1; len].into()))).await.unwrap();
        }
        // When its end and the stream's name follow, which can't go to the disk.
        writer.push(Item::SnapshotEnd).await.unwrap();
        writer.push(Item::NewReplid { replid: name, at: Offset(1) }).await.unwrap();
        // Then the bound holds for them as well.
        let stats = reader.stats();
        assert!(stats.bytes_memory <= MEMORY, "the last with {last} bytes: {stats:?}");
    }
}
