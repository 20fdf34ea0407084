//! What a daemon prints: its end is kept for whoever asks why it ended, and all of it is passed on
//! line by line, as fast as a log bears.

use crate::text::strip_control;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How much of a daemon's output is kept, in bytes.
const KEPT: usize = 8 * 1024;
/// The longest line that is passed on, in bytes; the rest of it is left out.
const LINE: usize = 1024;
/// How many lines are passed on in one `WINDOW`.
const LINES: u32 = 100;
/// The time over which lines are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// The output of one daemon.
pub(crate) struct Output {
    tail: VecDeque<u8>,
    line: Vec<u8>,
    window: Instant,
    lines: u32,
    left_out: u64,
}

impl Output {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            tail: VecDeque::new(),
            line: Vec::new(),
            window: now,
            lines: 0,
            left_out: 0,
        }
    }

    /// Takes what was printed, and hands each whole line to `pass_on`, without control characters.
    pub(crate) fn take(&mut self, bytes: &[u8], now: Instant, mut pass_on: impl FnMut(&str)) {
        self.keep(bytes);
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(now, &mut pass_on),
                _ if self.line.len() < LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

    /// The end of what was printed, at most 8 KiB.
    pub(crate) fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn keep(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let over = (self.tail.len() + bytes.len()).saturating_sub(KEPT);
        self.tail.drain(..over);
        self.tail.extend(bytes);
    }

    fn end_line(&mut self, now: Instant, pass_on: &mut impl FnMut(&str)) {
        let line = std::mem::take(&mut self.line);
        if now.saturating_duration_since(self.window) >= WINDOW {
            self.window = now;
            self.lines = 0;
            if self.left_out > 0 {
                pass_on(&format!("({} lines of output left out)", self.left_out));
                self.left_out = 0;
            }
        }
        if self.lines == LINES {
            self.left_out += 1;
            return;
        }
        self.lines += 1;
        pass_on(strip_control(&String::from_utf8_lossy(&line)).trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, LINE, LINES, Output, WINDOW};
    use std::time::Instant;

    #[test]
    fn passes_whole_lines_on() {
        let now = Instant::now();
        let (mut output, mut lines) = (Output::new(now), Vec::new());
        for part in ["on", "e\ntwo\tx\n", "thr"] {
            output.take(part.as_bytes(), now, |line| lines.push(line.to_owned()));
        }
        assert_eq!(lines, ["one", "two x"]);
        assert_eq!(output.tail(), "one\ntwo\tx\nthr");
    }

    #[test]
    fn a_talkative_daemon_is_bounded() {
        let now = Instant::now();
        let (mut output, mut lines) = (Output::new(now), Vec::new());
        let long = "x".repeat(3 * KEPT);
        output.take(long.as_bytes(), now, |line| lines.push(line.to_owned()));
        assert_eq!(output.tail().len(), KEPT);
        for _ in 0..2 * LINES {
            output.take(b"\n", now, |line| lines.push(line.to_owned()));
        }
        assert_eq!(lines.len(), LINES as usize);
        assert_eq!(lines[0].len(), LINE);
        output.take(b"y\n", now + WINDOW, |line| lines.push(line.to_owned()));
        assert_eq!(
            lines[LINES as usize..],
            ["(100 lines of output left out)", "y"]
        );
    }
}
