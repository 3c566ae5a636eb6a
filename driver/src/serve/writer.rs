//! A language model that is served: requests become texts for the engine.

use super::answer::{Answer, Form};
use super::fields::Fields;
use super::prompts;
use super::queue::Wanted;
use super::refusal::{Refusal, told};
use super::wishes::Wishes;
use crate::generate::Model;
use crate::generate::text::{ChatTemplate, Ordered, Tokenizer};
use crate::{Error, Result};
use serde_json::{Value as Json, json};

/// Tokens of a completion where a request does not say how many: OpenAI's.
const COMPLETION_TOKENS: usize = 16;

/// A language model with what makes texts tokens.
pub struct Writer {
    /// The model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its template of chats, or why there is none.
    template: Result<ChatTemplate, String>,
}

/// A request that the engine can take.
pub struct Prepared {
    /// The texts that it asks for.
    pub texts: Vec<Wanted>,
    /// What is answered.
    pub answer: Answer,
    /// True where the answer comes in pieces.
    pub stream: bool,
}

impl Writer {
    /// A model with its tokenizer, and its template of chats where there is one.
    ///
    /// # Errors
    /// When there is no tokenizer, or it does not fit the model; when this has an encoder, whose sources differ from request to request.
    pub fn new(model: Model) -> Result<Writer> {
        if model.encoder().is_some() {
            let message =
                "a model with an encoder and a decoder is not served: `brolga generate` and `transcribe` run it";
            return Err(Error::Option(message.into()));
        }
        Ok(Writer {
            tokenizer: Tokenizer::of(model.files(), model.facts().vocabulary)?,
            template: ChatTemplate::of(model.files()).map_err(|e| told(&e)),
            model,
        })
    }

    /// A request to go on from prompts.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn completion(&self, name: &str, mut fields: Fields) -> Result<Prepared, Refusal> {
        let prompt = fields.needed("prompt")?;
        let wishes = Wishes::take(&mut fields, self.model.facts(), Some(COMPLETION_TOKENS))?;
        fields.only("echo", &[json!(false)])?;
        fields.only("best_of", &[json!(1), json!(wishes.n)])?;
        fields.only("suffix", &[json!("")])?;
        fields.finish()?;
        let prompts = prompts::tokens(&self.tokenizer, "prompt", &prompt)?;
        self.prepared(Form::Completion, name, "prompt", prompts, wishes, None)
    }

    /// A request to reply to a chat.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn chat(&self, name: &str, mut fields: Fields) -> Result<Prepared, Refusal> {
        let messages = fields.needed("messages")?;
        let wishes = Wishes::take(&mut fields, self.model.facts(), None)?;
        fields.only("response_format", &[json!({ "type": "text" })])?;
        fields.only("modalities", &[json!(["text"])])?;
        fields.only("parallel_tool_calls", &[json!(true)])?;
        let without = fields.text("tool_choice").map_err(|_| unsupported("tool_choice"))?;
        if without
            .as_ref()
            .is_some_and(|choice| choice != "auto" && choice != "none")
        {
            return Err(unsupported("tool_choice"));
        }
        let tools = fields
            .take("tools")
            .filter(|t| t.as_array().is_none_or(|all| !all.is_empty()));
        let extra = fields.object("chat_template_kwargs")?.all();
        fields.finish()?;
        let tools = tools.filter(|_| without.as_deref() != Some("none"));
        let names = tools.as_ref().map(tool_names).transpose()?;
        let messages = messages.as_array().filter(|all| !all.is_empty());
        let messages = messages.ok_or_else(|| Refusal::field("messages", "expected a list with a message or more"))?;
        if !messages.iter().all(|m| m["role"].is_string()) {
            return Err(Refusal::field("messages", "a message is an object with a role"));
        }
        let template = self.template.as_ref().map_err(Refusal::bad)?;
        let messages: Vec<Ordered> = messages.iter().map(Ordered::from).collect();
        let extra: Vec<(&str, Ordered)> = extra.iter().map(|(name, v)| (name.as_str(), v.into())).collect();
        let text = template.render_with(&messages, tools.as_ref().map(Ordered::from).as_ref(), true, &extra);
        let text = text.map_err(|e| Refusal::field("messages", told(&e)))?;
        let prompt = self.tokenizer.encode(&text, false);
        let prompt = prompt.map_err(|e| Refusal::field("messages", told(&e)))?;
        self.prepared(Form::Chat, name, "messages", vec![prompt], wishes, names)
    }

    fn prepared(
        &self,
        form: Form,
        name: &str,
        field: &str,
        prompts: Vec<Vec<i64>>,
        wishes: Wishes,
        tools: Option<Vec<String>>,
    ) -> Result<Prepared, Refusal> {
        let context = self.model.facts().context;
        for prompt in &prompts {
            self.model.check(prompt.len(), prompt).map_err(|e| Refusal {
                code: context.filter(|c| prompt.len() > *c).map(|_| "context_length_exceeded"),
                ..Refusal::field(field, told(&e))
            })?;
        }
        let lengths = prompts.iter().map(Vec::len).collect();
        let mut texts = vec![];
        for prompt in prompts {
            let prompt: std::sync::Arc<[i64]> = prompt.into();
            texts.extend((0..wishes.n).map(|choice| Wanted {
                prompt: prompt.clone(),
                settings: wishes.settings(choice),
                stops: wishes.stops.clone(),
                goes_on: form == Form::Completion,
            }));
        }
        Ok(Prepared {
            texts,
            answer: Answer::new(form, name, lengths, wishes.n, tools).include_usage(wishes.include_usage),
            stream: wishes.stream,
        })
    }
}

fn unsupported(field: &str) -> Refusal {
    Refusal::field(field, "expected `auto` or `none`: calls cannot be made a must")
}

fn tool_names(tools: &Json) -> Result<Vec<String>, Refusal> {
    let name = |tool: &Json| tool["function"]["name"].as_str().map(str::to_owned);
    let names = tools.as_array().and_then(|all| all.iter().map(name).collect());
    names.ok_or_else(|| Refusal::field("tools", "expected a list of functions with names"))
}
