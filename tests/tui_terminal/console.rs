//! The console in a pseudo-terminal: keys that are typed, words that are waited for; and a home with its engine.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::{
    ffi::OsStr,
    io::{Read, Write},
    num::NonZeroU16,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

/// What a person would wait for; prechecks and a first copy take some seconds on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).expect("not zero")
}

/// A console in a pseudo-terminal.
pub struct Console {
    pub child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    pub screen: Arc<Mutex<vt100::Parser>>,
    changed: mpsc::Receiver<usize>,
}

impl Console {
    pub fn open(home: &tempfile::TempDir, args: &[&str], env: &[(&str, &str)]) -> Console {
        Console::program(env!("CARGO_BIN_EXE_duplex").as_ref(), home, args, env)
    }

    /// The same with another program that opens a console.
    pub fn program(program: &OsStr, home: &tempfile::TempDir, args: &[&str], env: &[(&str, &str)]) -> Console {
        let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a pseudo-terminal");
        let mut command = CommandBuilder::new(program);
        command.args(args);
        command.env_clear();
        for (name, value) in
            [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("HOME", "/tmp"), ("PATH", "/usr/bin:/bin")]
        {
            command.env(name, value);
        }
        command.env("DUPLEX_HOME", home.path());
        for (name, value) in env {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).expect("the console");
        let keys = pair.master.take_writer().expect("a keyboard");
        let mut reader = pair.master.try_clone_reader().expect("a screen");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(some(24), some(80), 0)));
        let (tell, changed) = mpsc::channel();
        let theirs = screen.clone();
        thread::spawn(move || {
            let mut bytes = [0; 8192];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                theirs.lock().expect("screen").process(&bytes[..n]);
                if tell.send(n).is_err() {
                    return;
                }
            }
        });
        Console { child, master: pair.master, keys, screen, changed }
    }

    pub fn text(&self) -> String {
        self.screen.lock().expect("screen").screen().contents()
    }

    /// Types text and keys such as `<tab>`, `<pgdn>`, `<ctrl-u>`.
    pub fn type_(&mut self, keys: &str) {
        let mut rest = keys;
        while let Some(c) = rest.chars().next() {
            let named = rest.strip_prefix('<').and_then(|r| r.split_once('>'));
            let bytes: &[u8] = match named.map(|(name, _)| name) {
                Some("tab") => b"\t",
                Some("ret") => b"\r",
                Some("esc") => b"\x1b",
                Some("up") => b"\x1b[A",
                Some("down") => b"\x1b[B",
                Some("right") => b"\x1b[C",
                Some("left") => b"\x1b[D",
                Some("pgup") => b"\x1b[5~",
                Some("pgdn") => b"\x1b[6~",
                Some("ctrl-u") => b"\x15",
                Some("ctrl-c") => b"\x03",
                _ => &rest.as_bytes()[..c.len_utf8()],
            };
            self.keys.write_all(bytes).expect("typed");
            rest = match named {
                Some((_, after)) => after,
                None => &rest[c.len_utf8()..],
            };
        }
        self.keys.flush().expect("typed");
    }

    /// Clicks on the first place where the words stand.
    #[track_caller]
    pub fn click(&mut self, words: &str) {
        self.shows(&[words]);
        let (column, row) = {
            let parser = self.screen.lock().expect("screen");
            let screen = parser.screen();
            let (rows, columns) = screen.size();
            let rows = (0..rows.get()).map(|row| screen.contents_between(row, 0, row, columns.get()));
            let found = rows.enumerate().find_map(|(y, row)| Some((row[..row.find(words)?].chars().count(), y)));
            found.expect("the words")
        };
        // as xterm reports a button that is pressed and let go: each in one piece, as a terminal writes it
        for end in ['M', 'm'] {
            let report = format!("\x1b[<0;{};{}{end}", column + 2, row + 1);
            self.keys.write_all(report.as_bytes()).expect("clicked");
        }
        self.keys.flush().expect("clicked");
    }

    /// Waits until the screen shows all of the words.
    #[track_caller]
    pub fn shows(&self, words: &[&str]) -> String {
        self.until(&format!("{words:?}"), |text| words.iter().all(|w| text.contains(w)))
    }

    #[track_caller]
    pub fn until(&self, what: &str, good: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if good(&text) {
                return text;
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.changed.recv_timeout(left).is_err() {
                let text = self.text();
                assert!(good(&text), "no {what} within {PATIENCE:?}; the screen:\n{text}");
                return text;
            }
        }
    }

    /// Waits for the end; the exit code.
    #[track_caller]
    pub fn ends(&mut self) -> u32 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the console's end") {
                return status.exit_code();
            }
            assert!(Instant::now() < end, "the console did not end; the screen:\n{}", self.text());
            let _ = self.changed.recv_timeout(Duration::from_millis(50));
        }
    }

    pub fn resize(&self, cols: u16, rows: u16) {
        self.screen.lock().expect("screen").screen_mut().set_size(some(rows), some(cols));
        self.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).expect("resized");
    }

    /// The terminal is as a shell needs it: no alternate screen, cursor shown, no paste or mouse mode.
    #[track_caller]
    pub fn is_sane(&self) {
        self.until("sane terminal", |_| true);
        let end = Instant::now() + PATIENCE;
        loop {
            let parser = self.screen.lock().expect("screen");
            let s = parser.screen();
            let sane = !s.alternate_screen()
                && !s.hide_cursor()
                && !s.bracketed_paste()
                && s.mouse_protocol_mode() == vt100::MouseProtocolMode::None;
            drop(parser);
            if sane {
                return;
            }
            assert!(Instant::now() < end, "the terminal was left strange");
            let _ = self.changed.recv_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A home whose engine is ended with the test.
pub struct Home(pub tempfile::TempDir);

impl Home {
    pub fn new() -> Home {
        Home(tempfile::tempdir().expect("a home"))
    }

    pub fn engine_pid(&self) -> Option<Pid> {
        let status = std::process::Command::new(env!("CARGO_BIN_EXE_duplex"))
            .args(["status", "--json"])
            .env("DUPLEX_HOME", self.0.path())
            .output()
            .ok()?;
        let json: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
        Some(Pid::from_raw(json["engine_pid"].as_i64()? as i32))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(pid) = self.engine_pid() {
            let _ = kill(pid, Signal::SIGTERM);
            let end = Instant::now() + PATIENCE;
            while kill(pid, None).is_ok() && Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
