//! What is answered to a request for texts: one object at the end, or one for each piece.

use super::calls::{Call, Calls, Part};
use super::logprobs::Words;
use super::queue::{Event, Told};
use super::refusal::Refusal;
use crate::generate::reply::Finish;
use serde_json::{Value as Json, json};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Which of OpenAI's interfaces was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}

/// An answer on its way.
pub struct Answer {
    form: Form,
    id: String,
    created: u64,
    model: String,
    /// Tokens of each prompt.
    prompts: Vec<usize>,
    /// Texts of each prompt.
    n: usize,
    /// Says how many tokens there were at the end of a stream.
    include_usage: bool,
    /// What tokens are called, where it is told how likely they were.
    words: Option<Arc<Words>>,
    texts: Vec<Text>,
}

/// One of its texts.
struct Text {
    calls: Option<Calls>,
    shown: String,
    called: Vec<Json>,
    /// Its tokens, where it is told how likely they were.
    told: Vec<Told>,
    /// How many of them a stream has said.
    said: usize,
    finish: Option<Finish>,
    tokens: usize,
    kept: usize,
}

impl Answer {
    /// An answer with so many texts for each prompt, of which tokens are counted; `tools` are names, where there may be calls.
    pub fn new(form: Form, model: &str, prompts: Vec<usize>, n: usize, tools: Option<Vec<String>>) -> Answer {
        let prefix = match form {
            Form::Chat => "chatcmpl",
            Form::Completion => "cmpl",
        };
        let text = |_| Text {
            calls: tools.clone().map(Calls::new),
            shown: String::new(),
            called: vec![],
            told: vec![],
            said: 0,
            finish: None,
            tokens: 0,
            kept: 0,
        };
        Answer {
            form,
            id: format!("{prefix}-{:016x}", RandomState::new().hash_one(())),
            created: now(),
            model: model.to_owned(),
            texts: (0..prompts.len() * n).map(text).collect(),
            prompts,
            n,
            include_usage: false,
            words: None,
        }
    }

    /// The same as a stream that ends with how many tokens there were, if asked for.
    pub fn include_usage(self, include_usage: bool) -> Answer {
        Answer { include_usage, ..self }
    }

    /// The same with how likely tokens were, where they are called something.
    pub fn logprobs(self, words: Option<Arc<Words>>) -> Answer {
        Answer { words, ..self }
    }

    /// Takes an event of a text; what a stream says of it.
    ///
    /// # Errors
    /// When the text came to nothing.
    pub fn take(&mut self, index: usize, event: Event) -> Result<Vec<Json>, Refusal> {
        let text = &mut self.texts[index];
        let (parts, ended) = match event {
            Event::Begun { kept } => {
                text.kept = kept;
                return Ok(match self.form {
                    Form::Chat => vec![self.delta(index, json!({ "role": "assistant", "content": "" }), None)],
                    Form::Completion => vec![],
                });
            }
            Event::Piece { text: piece, tokens } => {
                text.told.extend(tokens);
                match &mut text.calls {
                    Some(calls) => (calls.push(&piece), false),
                    // Tokens without a text are said with the next piece.
                    None if piece.is_empty() => (vec![], false),
                    None => (vec![Part::Text(piece)], false),
                }
            }
            Event::Ended { finish, tokens } => {
                text.tokens = tokens;
                text.finish = Some(finish);
                (text.calls.as_mut().map_or_else(Vec::new, Calls::rest), true)
            }
            Event::Failed(message) => return Err(Refusal::failed(message)),
        };
        let mut said: Vec<Json> = parts.into_iter().map(|part| self.part(index, part)).collect();
        if ended {
            let finish = self.texts[index].finish();
            said.push(self.delta(index, json!({}), finish));
        }
        Ok(said)
    }

    /// True when all its texts ended.
    pub fn is_whole(&self) -> bool {
        self.texts.iter().all(|t| t.finish.is_some())
    }

    /// All of it in one object.
    pub fn whole(&self) -> Json {
        let choice = |(index, text): (usize, &Text)| {
            let logprobs = self.words.as_ref().map(|words| self.likely(words, &text.told));
            match self.form {
                Form::Chat => json!({
                    "index": index, "message": text.message(), "logprobs": logprobs, "finish_reason": text.finish(),
                }),
                Form::Completion => json!({
                    "index": index, "text": text.shown, "logprobs": logprobs, "finish_reason": text.finish(),
                }),
            }
        };
        let choices = self.texts.iter().enumerate().map(choice).collect();
        let mut whole = self.object(choices, false);
        whole["usage"] = self.usage();
        whole
    }

    /// What a stream says last.
    pub fn last(&self) -> Option<Json> {
        self.include_usage.then(|| {
            let mut last = self.object(vec![], true);
            last["usage"] = self.usage();
            last
        })
    }

    fn part(&mut self, index: usize, part: Part) -> Json {
        match part {
            Part::Text(piece) => {
                self.texts[index].shown += &piece;
                self.delta(index, json!({ "content": piece }), None)
            }
            Part::Call(call) => {
                let call = self.texts[index].call(&call);
                self.delta(index, json!({ "tool_calls": [call] }), None)
            }
        }
    }

    /// How likely tokens were.
    fn likely(&self, words: &Words, told: &[Told]) -> Json {
        match self.form {
            Form::Chat => words.chat(told),
            Form::Completion => words.completion(told),
        }
    }

    /// What a stream says of a text; `delta` is what is new of its message.
    fn delta(&mut self, index: usize, mut delta: Json, finish: Option<&str>) -> Json {
        let text = &mut self.texts[index];
        let from = std::mem::replace(&mut text.said, text.told.len());
        let new = Some(&self.texts[index].told[from..]).filter(|new| !new.is_empty());
        let logprobs = self.words.as_ref().zip(new).map(|(words, new)| self.likely(words, new));
        let choice = match self.form {
            Form::Chat => json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish }),
            Form::Completion => {
                let text = delta["content"].take();
                let text = text.as_str().unwrap_or_default();
                json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish })
            }
        };
        let mut chunk = self.object(vec![choice], true);
        if self.include_usage {
            chunk["usage"] = Json::Null;
        }
        chunk
    }

    fn object(&self, choices: Vec<Json>, streamed: bool) -> Json {
        let object = match (self.form, streamed) {
            (Form::Chat, true) => "chat.completion.chunk",
            (Form::Chat, false) => "chat.completion",
            (Form::Completion, _) => "text_completion",
        };
        json!({ "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices })
    }

    /// Each prompt counts once, as its first text found it.
    fn usage(&self) -> Json {
        let prompt: usize = self.prompts.iter().sum();
        let completion: usize = self.texts.iter().map(|t| t.tokens).sum();
        let kept: usize = self.texts.iter().step_by(self.n).map(|t| t.kept).sum();
        json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": { "cached_tokens": kept },
        })
    }
}

impl Text {
    /// Notes a call; what a stream says of it.
    fn call(&mut self, call: &Call) -> Json {
        let mut json = call.json();
        self.called.push(json.clone());
        json["index"] = (self.called.len() - 1).into();
        json
    }

    fn finish(&self) -> Option<&'static str> {
        match self.finish? {
            Finish::Stop if !self.called.is_empty() => Some("tool_calls"),
            finish => Some(finish.name()),
        }
    }

    fn message(&self) -> Json {
        let mut message = json!({ "role": "assistant", "content": self.shown, "refusal": null });
        if !self.called.is_empty() {
            message["tool_calls"] = self.called.clone().into();
            if self.shown.is_empty() {
                message["content"] = Json::Null;
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply with a call, as a whole and as a stream.
    #[test]
    fn calls_are_answered_as_calls() {
        let mut answer = Answer::new(Form::Chat, "m", vec![7], 1, Some(vec!["time".into()])).include_usage(true);
        let piece = |text: &str| Event::Piece {
            text: text.into(),
            tokens: vec![],
        };
        let events = [
            Event::Begun { kept: 3 },
            piece("Well.\n<tool"),
            piece("_call>{\"name\": \"time\", \"arguments\": {\"zone\": 1}}"),
            piece("</tool_call>"),
            Event::Ended {
                finish: Finish::Stop,
                tokens: 9,
            },
        ];
        let said: Vec<Json> = events
            .into_iter()
            .flat_map(|e| answer.take(0, e).expect("nothing fails"))
            .collect();
        assert!(answer.is_whole());
        let choices: Vec<&Json> = said.iter().map(|s| &s["choices"][0]).collect();
        assert_eq!(choices[0]["delta"], json!({ "role": "assistant", "content": "" }));
        assert_eq!(choices[1]["delta"], json!({ "content": "Well." }));
        let call = &choices[2]["delta"]["tool_calls"][0];
        assert_eq!([&call["index"], &call["type"]], [&json!(0), &json!("function")]);
        assert_eq!(call["function"], json!({ "name": "time", "arguments": "{\"zone\":1}" }));
        assert_eq!(
            [&choices[3]["delta"], &choices[3]["finish_reason"]],
            [&json!({}), &json!("tool_calls")]
        );
        assert_eq!(choices.len(), 4);
        assert!(
            said.iter()
                .all(|s| s["object"] == "chat.completion.chunk" && s["usage"].is_null())
        );
        let usage = json!({
            "prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16, "prompt_tokens_details": { "cached_tokens": 3 },
        });
        assert_eq!(answer.last().expect("it was asked for")["usage"], usage);
        let whole = answer.whole();
        assert_eq!(whole["usage"], usage);
        let message = &whole["choices"][0]["message"];
        assert_eq!(message["content"], "Well.");
        assert_eq!(message["tool_calls"][0]["id"], call["id"]);
        assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    }
}
