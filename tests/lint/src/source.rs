//! One source file to the modules that it declares and the paths that it names. Read as tokens, so that
//! what stands in the arguments of a macro is seen too.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};
use std::iter::Peekable;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    /// `mod name;`, each with the inline modules around it.
    pub(crate) modules: Vec<Vec<String>>,
    pub(crate) paths: Vec<Named>,
}

/// A path with more than one segment, as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The inline modules around it.
    pub(crate) within: Vec<String>,
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// What `text` declares and names outside of tests. A file that is not made of Rust's tokens, and
/// `#[path]`, are errors.
pub(crate) fn parse(text: &str) -> Result<Source> {
    let tokens: TokenStream = text.parse().map_err(|e| anyhow!("{e}"))?;
    let mut source = Source::default();
    source.items(tokens, &[])?;
    Ok(source)
}

type Tokens = Peekable<proc_macro2::token_stream::IntoIter>;

impl Source {
    fn items(&mut self, tokens: TokenStream, within: &[String]) -> Result<()> {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(sign) if sign.as_char() == '#' => {
                    self.attribute(&mut tokens, within)?;
                }
                // `pub(in super::a)` says who may import, and imports nothing.
                TokenTree::Group(group) if starts_with_in(&group) => {}
                TokenTree::Group(group) => self.items(group.stream(), within)?,
                TokenTree::Ident(word) if word == "mod" => self.module(&mut tokens, within)?,
                TokenTree::Ident(word) if word == "use" => self.tree(&mut tokens, within, &[])?,
                TokenTree::Ident(word) => {
                    let line = word.span().start().line;
                    let mut segments = vec![word.to_string()];
                    while is_path_separator(&mut tokens) {
                        match tokens.peek() {
                            Some(TokenTree::Ident(next)) => segments.push(next.to_string()),
                            _ => break,
                        }
                        tokens.next();
                    }
                    self.name(within, segments, line);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        Ok(())
    }

    /// An attribute after its `#`; with `cfg(test)` the item after it is skipped.
    fn attribute(&mut self, tokens: &mut Tokens, within: &[String]) -> Result<()> {
        let Some(TokenTree::Group(attribute)) = tokens.peek().cloned() else {
            return Ok(()); // `#![…]`: the group comes as a token of its own.
        };
        tokens.next();
        let words = attribute.stream().to_string().replace(' ', "");
        if words.starts_with("path=") {
            let line = attribute.span_open().start().line;
            return Err(anyhow!(
                "line {line}: #[path] is not followed: move the file"
            ));
        }
        if words != "cfg(test)" {
            return self.items(attribute.stream(), within);
        }
        for token in tokens {
            let ends = match &token {
                TokenTree::Punct(sign) => sign.as_char() == ';',
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                TokenTree::Ident(_) | TokenTree::Literal(_) => false,
            };
            if ends {
                break;
            }
        }
        Ok(())
    }

    /// A module after its `mod`: a file of its own, or inline.
    fn module(&mut self, tokens: &mut Tokens, within: &[String]) -> Result<()> {
        let Some(TokenTree::Ident(name)) = tokens.next() else {
            return Ok(());
        };
        let path: Vec<String> = within.iter().cloned().chain([name.to_string()]).collect();
        match tokens.next() {
            Some(TokenTree::Group(body)) => self.items(body.stream(), &path),
            _ => {
                self.modules.push(path);
                Ok(())
            }
        }
    }

    /// A tree of imports after `use`, or a part of one after `prefix`.
    fn tree(&mut self, tokens: &mut Tokens, within: &[String], prefix: &[String]) -> Result<()> {
        let mut segments = prefix.to_vec();
        let mut line = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(sign) if sign.as_char() == ':' => {}
                TokenTree::Punct(sign) if sign.as_char() == ',' => {
                    self.name(
                        within,
                        std::mem::replace(&mut segments, prefix.to_vec()),
                        line,
                    );
                }
                TokenTree::Punct(sign) if sign.as_char() == ';' => break,
                TokenTree::Group(group) => {
                    let mut inner = group.stream().into_iter().peekable();
                    self.tree(&mut inner, within, &segments)?;
                    segments.clear();
                }
                TokenTree::Ident(word) => {
                    line = word.span().start().line;
                    // `{self, …}` is the module before it.
                    if word != "self" || segments.is_empty() {
                        segments.push(word.to_string());
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        self.name(within, segments, line);
        Ok(())
    }

    fn name(&mut self, within: &[String], segments: Vec<String>, line: usize) {
        if segments.len() > 1 {
            self.paths.push(Named {
                within: within.to_vec(),
                segments,
                line,
            });
        }
    }
}

fn starts_with_in(group: &Group) -> bool {
    let first = group.stream().into_iter().next();
    matches!(first, Some(TokenTree::Ident(word)) if word == "in")
}

/// Whether `::` comes next, which is then taken.
fn is_path_separator(tokens: &mut Tokens) -> bool {
    let mut ahead = tokens.clone();
    let colon = |token: Option<TokenTree>| match token {
        Some(TokenTree::Punct(sign)) if sign.as_char() == ':' => Some(sign.spacing()),
        _ => None,
    };
    if colon(ahead.next()) == Some(Spacing::Joint) && colon(ahead.next()).is_some() {
        *tokens = ahead;
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn paths(text: &str) -> Vec<String> {
        let source = parse(text).unwrap();
        let path =
            |named: &super::Named| [&named.within[..], &named.segments[..]].concat().join("::");
        source.paths.iter().map(path).collect()
    }

    #[test]
    fn finds_each_path_that_is_named() {
        for (case, text, expected) in [
            ("a use", "use crate::a::B;", &["crate::a::B"][..]),
            ("a public one", "pub(crate) use a::B;", &["a::B"]),
            (
                "a tree",
                "use crate::{a::{self, B}, c::D as E, f::*};",
                &["crate::a", "crate::a::B", "crate::c::D::as::E", "crate::f"],
            ),
            ("a call", "fn f() { super::g(); }", &["super::g"]),
            (
                "a type's parameters",
                "fn f(x: crate::a::B<c::D>) {}",
                &["crate::a::B", "c::D"],
            ),
            (
                "a turbofish",
                "fn f() { a::b::<c::D>(); }",
                &["a::b", "c::D"],
            ),
            (
                "in a macro",
                "fn f() { format!(\"{}\", crate::a::B); }",
                &["crate::a::B"],
            ),
            (
                "an inline module",
                "mod m { use super::a::B; }",
                &["m::super::a::B"],
            ),
            (
                "a visibility",
                "pub(in crate::a) const B: u8 = c::D;",
                &["c::D"],
            ),
            ("a type's colon", "struct S { a: b::C }", &["b::C"]),
            (
                "text",
                "// crate::a::B\nconst T: &str = \"crate::a::B\";",
                &[],
            ),
            (
                "a test",
                "#[cfg(test)]\nmod tests { use super::a::B; }\nuse c::D;",
                &["c::D"],
            ),
            (
                "a use of tests",
                "#[cfg(test)] use a::B; use c::D;",
                &["c::D"],
            ),
            (
                "after another attribute",
                "#[derive(Debug)] struct S(a::B);",
                &["a::B"],
            ),
        ] {
            assert_eq!(paths(text), expected, "{case}");
        }
    }

    #[test]
    fn finds_each_module_with_a_file() {
        let source =
            parse("mod a;\npub(crate) mod b;\nmod c { mod d; }\n#[cfg(test)] mod e;").unwrap();
        let expected: [&[&str]; 3] = [&["a"], &["b"], &["c", "d"]];
        assert_eq!(source.modules, expected);
    }

    #[test]
    fn refuses_a_module_of_another_place() {
        let error = parse("\n#[path = \"../x.rs\"]\nmod x;").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: #[path] is not followed: move the file"
        );
    }
}
