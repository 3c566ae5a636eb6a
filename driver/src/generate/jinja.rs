//! Jinja as transformers sets it up for templates of chats (`chat_template_utils.py`): what `minijinja` has otherwise, or not at all.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;
use std::fmt::Write;

/// Steps that a template may take, so that one that never ends does.
const FUEL: u64 = 50_000_000;

/// Levels of lists in lists that are written as JSON.
const DEPTH: usize = 128;

/// An environment of one template, called `chat`.
pub(super) fn environment(template: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.set_fuel(Some(FUEL));
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", now);
    environment.add_filter("tojson", to_json);
    environment.add_template_owned("chat", without_marks(template))?;
    Ok(environment)
}

/// The template without `{% generation %}`, which marks for training what a model says: a block that is always there, with the same spaces.
fn without_marks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out += before;
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, behind) = tag.split_at(end);
        let word = tag.trim_matches(['{', '%', '}', '-', '+', ' ', '\t', '\n']);
        match word {
            "generation" => out += &tag.replace("generation", "if true"),
            "endgeneration" => out += &tag.replace("endgeneration", "endif"),
            _ => out += tag,
        }
        rest = behind;
    }
    out + rest
}

/// The local time, as C's `strftime` writes it.
fn now(format: &str) -> Result<String, Error> {
    let text = jiff::fmt::strtime::format(format, &jiff::Zoned::now());
    text.map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
}

/// Methods of Python's strings that `minijinja-contrib` does not have, and those that it has.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), [part]) = (value.as_str(), args)
        && let Some(part) = part.as_str()
    {
        match name {
            "removeprefix" => return Ok(text.strip_prefix(part).unwrap_or(text).into()),
            "removesuffix" => return Ok(text.strip_suffix(part).unwrap_or(text).into()),
            _ => {}
        }
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

/// JSON as Python's `json.dumps` writes it with `ensure_ascii=False`: models were trained on its spaces, and fields in their order.
fn to_json(value: Value, rest: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    let mut positional = rest.0.into_iter();
    let mut option = |name: &str| -> Result<Option<Value>, Error> {
        let given = positional.next();
        let named: Option<Value> = options.get(name)?;
        Ok(given.or(named).filter(|v| !v.is_none() && !v.is_undefined()))
    };
    // In the order of transformers' function.
    let ascii = option("ensure_ascii")?.is_some_and(|v| v.is_true());
    let indent = match option("indent")? {
        Some(v) => Some(match v.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(v)?.min(64)),
        }),
        None => None,
    };
    let [item, key] = match option("separators")? {
        Some(v) => {
            let part = |i: usize| v.get_item_by_index(i).ok().and_then(|v| v.as_str().map(str::to_owned));
            let wrong = || Error::new(ErrorKind::InvalidOperation, "tojson: separators are two texts");
            [part(0).ok_or_else(wrong)?, part(1).ok_or_else(wrong)?]
        }
        None if indent.is_some() => [",".into(), ": ".into()],
        None => [", ".into(), ": ".into()],
    };
    let sorted = option("sort_keys")?.is_some_and(|v| v.is_true());
    options.assert_all_used()?;
    let mut writer = Writer {
        out: String::new(),
        ascii,
        indent,
        item,
        key,
        sorted,
    };
    writer.value(&value, 0)?;
    Ok(Value::from(writer.out))
}

struct Writer {
    out: String,
    ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidOperation, format!("tojson of {what}")));
        if depth > DEPTH {
            return wrong(format!("more than {DEPTH} lists in each other"));
        }
        match value.kind() {
            ValueKind::None => self.out += "null",
            ValueKind::Bool => self.out += if value.is_true() { "true" } else { "false" },
            ValueKind::Number => self.out += &number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], &items, depth, |w, item| w.value(item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.list(['{', '}'], &keys, depth, |w, key| {
                    match key.as_str() {
                        Some(text) => w.string(text),
                        None => {
                            w.out.push('"');
                            w.value(key, depth + 1)?;
                            w.out.push('"');
                        }
                    }
                    w.out += &w.key.clone();
                    w.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            kind => return wrong(format!("an {kind} value")),
        }
        Ok(())
    }

    fn list(
        &mut self,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        mut each: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out += &self.item.clone();
            }
            self.line(depth + 1);
            each(self, item)?;
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out += &indent.repeat(depth);
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out += "\\\"",
                '\\' => self.out += "\\\\",
                '\n' => self.out += "\\n",
                '\r' => self.out += "\\r",
                '\t' => self.out += "\\t",
                '\u{8}' => self.out += "\\b",
                '\u{c}' => self.out += "\\f",
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string does not fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A number as Python's `repr` writes it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(x) = f64::try_from(value.clone()) else {
        return value.to_string();
    };
    if x.is_nan() {
        return "NaN".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        let text = format!("{x:e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let power: i32 = power.parse().unwrap_or(0);
        return format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs());
    }
    format!("{x:?}")
}
