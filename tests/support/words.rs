//! Commands as a person types them: words, quotes, `\xNN`.

/// Splits a command line. Single or double quotes keep spaces together; inside double quotes `\n`, `\r`, `\t`, `\\`,
/// `\"` and `\xNN` mean what they mean in redis-cli. Panics on an open quote: the text stands in the test.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    let mut bytes = line.bytes().peekable();
    while let Some(&b) = bytes.peek() {
        if b == b' ' {
            bytes.next();
            continue;
        }
        let mut word = Vec::new();
        while let Some(&b) = bytes.peek() {
            match b {
                b' ' => break,
                b'\'' => {
                    bytes.next();
                    loop {
                        match bytes.next() {
                            Some(b'\'') => break,
                            Some(c) => word.push(c),
                            None => panic!("open quote in {line:?}"),
                        }
                    }
                }
                b'"' => {
                    bytes.next();
                    loop {
                        match bytes.next() {
                            Some(b'"') => break,
                            Some(b'\\') => match bytes.next() {
                                Some(b'n') => word.push(b'\n'),
                                Some(b'r') => word.push(b'\r'),
                                Some(b't') => word.push(b'\t'),
                                Some(b'x') => {
                                    let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                                    word.push(u8::from_str_radix(&hex, 16).expect("two hex digits after \\x"));
                                }
                                Some(c) => word.push(c),
                                None => panic!("open quote in {line:?}"),
                            },
                            Some(c) => word.push(c),
                            None => panic!("open quote in {line:?}"),
                        }
                    }
                }
                _ => {
                    word.push(b);
                    bytes.next();
                }
            }
        }
        out.push(word);
    }
    out
}
