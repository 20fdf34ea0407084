//! What a shell would make a command of. `CANARY` stands for a file that only a command that ran
//! can have made.

/// A text for a shell, and what becomes of it in the fields that take nearly any text.
pub(crate) struct Words {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    /// Whether it may be (after a slash) a directory of a bucket.
    pub(crate) is_path: bool,
    /// Whether it may be a half of a key pair.
    pub(crate) is_key: bool,
}

const fn words(name: &'static str, text: &'static str, is_path: bool, is_key: bool) -> Words {
    Words {
        name,
        text,
        is_path,
        is_key,
    }
}

pub(crate) const WORDS: &[Words] = &[
    words("command substitution", "$(touch CANARY)", true, false),
    words(
        "substitution without a blank",
        "$(touch${IFS}CANARY)",
        true,
        true,
    ),
    words("backquotes", "`touch CANARY`", false, false),
    words(
        "backquotes without a blank",
        "`touch${IFS}CANARY`",
        false,
        true,
    ),
    words("a semicolon", "x;touch CANARY;", true, false),
    words(
        "a semicolon without a blank",
        ";touch${IFS}CANARY;",
        true,
        true,
    ),
    words("a pipe", "x|touch CANARY", true, false),
    words("a second command", "x&&touch CANARY", true, false),
    words("a background job", "x&touch${IFS}CANARY&", true, true),
    words("a redirection", ">CANARY", true, true),
    words("a closed single quote", "';touch CANARY;'", false, false),
    words("a closed double quote", "\";touch CANARY;\"", false, false),
    words(
        "a closed quote without a blank",
        "';touch${IFS}CANARY;'",
        false,
        true,
    ),
    words("a line of its own", "x\ntouch CANARY\nx", false, false),
    words("a carriage return", "x\rtouch CANARY\rx", false, false),
    words("a brace expansion", "{touch,CANARY}", false, true),
    words("a process substitution", "<(touch${IFS}CANARY)", true, true),
    words("a here document", "<<x;touch${IFS}CANARY", true, true),
    words("a variable", "${PATH}", true, true),
    words("a glob", "x*[a-z]?", true, true),
    words("format directives", "%n%s%99999d", true, true),
    words("a comment", "x #touch CANARY", true, false),
    words("an option of the command", "-x --help", true, false),
    words("a NUL", "x\0touch CANARY", false, false),
    words("an escape sequence", "x\u{1b}[2Jx", false, false),
];
