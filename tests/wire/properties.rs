//! Properties of the codec, with another reader as the judge.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use redis_duplex::wire::resp::{CommandScan, Limits, Reply, ReplyReader, Step, encode, encoded_len, frame_len};
use redis_duplex::wire::stream::{Batch, Decoder};

fn commands() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let arg = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(b"\r\n*1\r\n$4\r\nEXEC\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 1000..1030),
    ];
    let name = prop_oneof![Just(b"SET".to_vec()), Just(b"lpush".to_vec()), Just(b"x".to_vec())];
    let command = (name, proptest::collection::vec(arg, 0..6)).prop_map(|(name, mut rest)| {
        rest.insert(0, name);
        rest
    });
    proptest::collection::vec(command, 0..12)
}

/// A reply as a tree, and its bytes.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    let text = "[ -~]{0,20}";
    let leaf = prop_oneof![
        text.prop_map(|t| format!("+{t}\r\n").into_bytes()),
        text.prop_map(|t| format!("-ERR {t}\r\n").into_bytes()),
        any::<i64>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(|b| {
            let mut out = format!("${}\r\n", b.len()).into_bytes();
            out.extend(b);
            out.extend(b"\r\n");
            out
        }),
        Just(b"$-1\r\n".to_vec()),
        Just(b"_\r\n".to_vec()),
        Just(b"#t\r\n".to_vec()),
        Just(b",1.5\r\n".to_vec()),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        (prop_oneof![Just('*'), Just('~'), Just('%'), Just('>')], proptest::collection::vec(inner, 0..5)).prop_map(
            |(marker, mut items)| {
                if marker == '%' && items.len() % 2 == 1 {
                    items.pop();
                }
                let n = if marker == '%' { items.len() / 2 } else { items.len() };
                [format!("{marker}{n}\r\n").into_bytes(), items.concat()].concat()
            },
        )
    })
}

/// The same reply as another crate reads it.
fn agrees(ours: Reply<'_>, theirs: &redis::Value) -> bool {
    use redis::Value;
    match (ours, theirs) {
        (Reply::Null, Value::Nil) => true,
        (Reply::Int(a), Value::Int(b)) => a == *b,
        (Reply::Bool(a), Value::Boolean(b)) => a == *b,
        (Reply::Bulk(a), Value::BulkString(b)) => a == b.as_slice(),
        (Reply::Simple(a), Value::Okay) => a == b"OK",
        (Reply::Simple(a), Value::SimpleString(b)) => a == b.as_bytes(),
        (Reply::Double(a), Value::Double(b)) => std::str::from_utf8(a).ok().and_then(|t| t.parse().ok()) == Some(*b),
        (Reply::Error(_), Value::ServerError(_)) => true,
        (Reply::Array(a), Value::Array(b) | Value::Set(b)) => a.len() == b.len() && a.zip(b).all(|(a, b)| agrees(a, b)),
        (Reply::Map(_), Value::Map(b)) => {
            let pairs = ours.pairs().into_iter().flatten();
            pairs.clone().count() == b.len() && pairs.zip(b).all(|((k, v), (tk, tv))| agrees(k, tk) && agrees(v, tv))
        }
        (Reply::Push(a), Value::Push { data, .. }) => a.skip(1).zip(data).all(|(a, b)| agrees(a, b)),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_decoded(commands in commands()) {
        let mut out = BytesMut::new();
        for command in &commands {
            let before = out.len();
            encode(&mut out, command);
            prop_assert_eq!(out.len() - before, encoded_len(command));
        }
        let mut scan = CommandScan::default();
        let mut at = 0;
        for command in &commands {
            let mut args = Vec::new();
            let step = scan.step(&out, &Limits::default(), &mut args);
            let Ok(Step::Command { start, end }) = step else { panic!("{step:?}") };
            prop_assert_eq!(start, at);
            let found: Vec<_> = args.iter().map(|&(s, e)| out[s as usize..e as usize].to_vec()).collect();
            prop_assert_eq!(&found, command);
            // The judge: a command is an array of bulk strings.
            let theirs = redis::parse_redis_value(&out[start..end]).expect("another reader takes it");
            prop_assert!(agrees(Reply::parse(&out[start..end]).expect("a reply, too"), &theirs));
            at = end;
        }
        prop_assert_eq!(scan.step(&out, &Limits::default(), &mut Vec::new()), Ok(Step::NeedMore(out.len() + 1)));
    }

    #[test]
    fn replies_are_what_another_reader_makes_of_them(replies in proptest::collection::vec(reply(), 1..8), cut in 1..20usize) {
        let bytes = replies.concat();
        let mut reader = ReplyReader::default();
        let mut left = replies.iter();
        for piece in bytes.chunks(cut) {
            reader.buffer().extend_from_slice(piece);
            while let Some(ours) = reader.next_reply().expect("a reply") {
                let expected = left.next().expect("no more than there are");
                let theirs = redis::parse_redis_value(expected);
                match theirs {
                    Ok(theirs) => prop_assert!(agrees(ours, &theirs), "{ours:?} and {theirs:?}"),
                    // The other crate refuses some pushes: ours has to be one.
                    Err(_) => prop_assert!(expected.contains(&b'>'), "{}", String::from_utf8_lossy(expected)),
                }
            }
        }
        prop_assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_transaction_comes_as_one_or_not_at_all(commands in commands(), cut in 0..4000usize) {
        let mut out = BytesMut::new();
        encode(&mut out, &["MULTI"]);
        commands.iter().for_each(|c| encode(&mut out, c));
        encode(&mut out, &["EXEC"]);
        let bytes = out.freeze();
        let cut = cut.min(bytes.len() - 1);
        let (mut decoder, mut batch) = (Decoder::new(5), Batch::default());
        prop_assert_eq!(decoder.decode(&bytes.slice(..cut), &mut batch), Ok(0));
        prop_assert!(decoder.needed() > cut && decoder.needed() <= bytes.len());
        prop_assert_eq!(decoder.decode(&bytes, &mut batch), Ok(bytes.len()));
        prop_assert_eq!(batch.entries.len(), 1);
        prop_assert!(batch.entries[0].transaction);
        prop_assert_eq!(batch.commands.len(), commands.len());
        for (found, command) in batch.commands.iter().zip(&commands) {
            prop_assert_eq!(found.db, 5);
            prop_assert_eq!(&batch.argv(found).map(<[u8]>::to_vec).collect::<Vec<_>>(), command);
            let mut again = BytesMut::new();
            encode(&mut again, command);
            prop_assert_eq!(batch.frame(found), again.freeze());
        }
    }
}

#[test]
fn a_hint_is_exact_for_one_long_value() {
    let mut out = BytesMut::new();
    encode(&mut out, &[&b"SET"[..], b"k", &vec![b'v'; 1 << 20]]);
    let bytes: Bytes = out.freeze();
    let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
    assert_eq!(decoder.decode(&bytes.slice(..40), &mut batch), Ok(0));
    assert_eq!(decoder.needed(), bytes.len());
}

#[test]
fn lengths_beyond_a_limit_or_a_number_are_refused() {
    for bad in [
        "*2\r\n$9223372036854775808\r\n",
        "*99999999999999999999\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n$1\r\nabc",
        "*1\r\n$3\rx",
        "*x\r\n",
        "*\r\n",
        "*1\r\n$\r\n\r\n",
        "SET \"quoted\" v\r\n",
        "\u{1}\u{2}\r\n",
    ] {
        let step = CommandScan::default().step(bad.as_bytes(), &Limits::default(), &mut Vec::new());
        assert!(step.is_err(), "{bad:?}: {step:?}");
    }
    for bad in ["?1\r\n", "$9223372036854775808\r\n", "$-2\r\n", "+\n", ":12x\r\n", "*2147483648\r\n"] {
        assert!(frame_len(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
