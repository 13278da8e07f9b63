"""One payload of llm_inference means the same in llama.cpp and in PyTorch: text, reason of the end, token counts."""

from __future__ import annotations

import pytest

from mesh.errors import BadInput
from mesh.kinds.table import validate
from node.executor.context import Context, InputFault, load
from node.workloads.llm import cache
from tests.language_models import END, scripted_gguf

#: An answer to a chat begins after a line break.
LETTERS = f"\nabcdefghijklmnopqrstuvwxyz.{END}"
INVALID_BYTE = "2\udcff3+3"


def chat(*turns: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def raw(prompt: str, **more: object) -> dict:
    return {"prompt": prompt, "raw": True, **more}


#: Payload -> text, reason, tokens of the prompt and of the answer. A byte is a token, and so is each mark of a turn.
CONTRACT: list[tuple[dict, tuple[str, str, int, int]]] = [
    # The end of an answer.
    (raw("a", max_tokens=1), ("b", "length", 1, 1)),
    (raw("a", max_tokens=5), ("bcdef", "length", 1, 5)),
    (raw("x"), ("yz.", "stop", 1, 4)),
    (raw("9"), ("", "stop", 1, 1)),
    (raw("x", max_tokens=3), ("yz.", "length", 1, 3)),
    (raw("x", max_tokens=4), ("yz.", "stop", 1, 4)),
    # A stop text: never completed, across tokens, several, at the first token, at the last one, by the end token.
    (raw("a", max_tokens=6, stop=["fg#never"]), ("bcdefg", "length", 1, 6)),
    (raw("w", stop=["z.#never"]), ("xyz.", "stop", 1, 5)),
    (raw("a", max_tokens=6, stop=["def"]), ("bc", "stop", 1, 5)),
    (raw("a", max_tokens=6, stop=["#", "fg", "de"]), ("bc", "stop", 1, 4)),
    (raw("a", max_tokens=6, stop=["bcde", "c"]), ("b", "stop", 1, 2)),
    (raw("a", max_tokens=6, stop=["b"]), ("", "stop", 1, 1)),
    (raw("a", max_tokens=3, stop=["cd"]), ("b", "stop", 1, 3)),
    (raw("y", stop=["."]), ("z", "stop", 1, 2)),
    (raw("1", max_tokens=6, stop=["🙂#never"]), ("🙂!1", "length", 1, 6)),
    (raw("1", max_tokens=9, stop=["🙂"]), ("", "stop", 1, 4)),
    # A character of four tokens, cut off after each of them; a byte that is no character.
    (raw("1", max_tokens=1), ("", "length", 1, 1)),
    (raw("1", max_tokens=3), ("", "length", 1, 3)),
    (raw("1", max_tokens=4), ("🙂", "length", 1, 4)),
    (raw("1", max_tokens=8), ("🙂!1", "length", 1, 8)),
    (raw("1", max_tokens=8, stop=["1#never"]), ("🙂!1", "length", 1, 8)),
    (raw("2", max_tokens=3), ("\N{REPLACEMENT CHARACTER}3+", "length", 1, 3)),
    # Chats.
    ({"prompt": "hello", "max_tokens": 5}, ("abcde", "length", 24, 5)),
    ({"prompt": "hello", "raw": True, "max_tokens": 2}, ("pq", "length", 5, 2)),
    (chat(("user", "x")) | {"max_tokens": 5}, ("abcde", "length", 20, 5)),
    (chat(("system", "s"), ("user", "x")) | {"max_tokens": 5}, ("abcde", "length", 31, 5)),
    (chat(("system", "s")) | {"max_tokens": 5}, ("abcde", "length", 22, 5)),
    (chat(("user", "x"), ("assistant", "y"), ("user", "z")) | {"max_tokens": 2}, ("ab", "length", 43, 2)),
    (chat(("user", " ")) | {"max_tokens": 2}, ("ab", "length", 20, 2)),
    # The turn of the assistant is continued.
    (chat(("user", "x"), ("assistant", "ab")) | {"max_tokens": 5}, ("cdefg", "length", 22, 5)),
    (chat(("user", "x"), ("assistant", "ab ")) | {"max_tokens": 2}, ("  ", "length", 23, 2)),
    (chat(("assistant", "ab")) | {"max_tokens": 5}, ("cdefg", "length", 13, 5)),
    # Sampling. The other tokens are 17 nats less likely: any temperature comes after what removes them.
    (raw("a", max_tokens=6, temperature=1, seed=3), ("bcdefg", "length", 1, 6)),
    (raw("a", max_tokens=6, temperature=5, min_p=0.001, top_k=0, top_p=1), ("bcdefg", "length", 1, 6)),
    (raw("a", max_tokens=6, temperature=5, min_p=0, top_k=1, top_p=1), ("bcdefg", "length", 1, 6)),
    (raw("a", max_tokens=6, temperature=5, min_p=0, top_k=0, top_p=0.9), ("bcdefg", "length", 1, 6)),
    (raw("a", max_tokens=6, repeat_penalty=2), ("bcdefg", "length", 1, 6)),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(payload)`: the result of each back end, and the last text that it reported while it ran."""
    models, folder = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("task")
    scripted_gguf(models / "scripted.gguf", LETTERS, "1🙂!1", INVALID_BYTE, f"9{END}")
    scripted_gguf(models / "plain.gguf", LETTERS, chat=None)

    def call(payload):
        found = []
        for backend in ("llama.cpp", "torch"):
            texts = [""]
            context = Context(
                1, folder, memory_mb=4096, grants={"models": (str(models),)},
                progress=lambda share, note="", text="", texts=texts: texts.append(text),
            )  # fmt: skip
            asked = {"model": "scripted", "backend": backend} | payload
            found.append((load("llm_inference")(validate("llm_inference", asked), context), texts))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a worker's working directory is the task's folder
        yield call
    cache.forget()


NAMES = ("text", "finish_reason", "prompt_tokens", "completion_tokens")


@pytest.mark.parametrize(("payload", "expected"), CONTRACT, ids=str)
def test_both_back_ends_give_the_answer_of_the_contract(run, payload, expected):
    for result, texts in run(payload):
        assert tuple(result[name] for name in NAMES) == expected, result["backend"]
        assert texts[-1] == expected[0], "streamed: everything is delivered"
        assert all(map(expected[0].startswith, texts)), "streamed: nothing is taken back"


def test_a_batch_means_the_same(run):
    for result, _ in run({"prompts": ["a", "9", "1"], "raw": True, "max_tokens": 6, "stop": ["de"]}):
        answers = [tuple(answer[name] for name in NAMES) for answer in result["answers"]]
        assert answers == [("bc", "stop", 1, 4), ("", "stop", 1, 1), ("🙂!1", "length", 1, 6)], result["backend"]


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (chat(("user", "x"), ("system", "s")), "can't be used with this model: the system turn must be first"),
        (chat(("user", "x")) | {"model": "plain"}, "which has no chat template; use prompt"),
    ],
    ids=str,
)
def test_both_back_ends_refuse_the_same_chats_with_the_same_words(run, payload, problem):
    for backend in ("llama.cpp", "torch"):
        with pytest.raises(InputFault) as caught:
            run(payload | {"backend": backend})
        assert caught.value.field == "messages" and caught.value.problem.endswith(problem)


def test_a_prompt_of_a_model_without_a_template_is_continued_by_both(run):
    for result, _ in run({"model": "plain", "prompt": "a", "max_tokens": 3}):
        assert tuple(result[name] for name in NAMES) == ("bcd", "length", 1, 3)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (chat(("user", "x"), ("assistant", "y"), ("assistant", "z")), "must not end with two turns"),
        (chat(("user", "")), "at least 1 character"),
        ({"messages": []}, "at least 1 element"),
        (chat(("tool", "x")), "must be 'system', 'user' or 'assistant'"),
    ],
    ids=str,
)
def test_a_chat_that_no_back_end_could_answer_is_refused_at_submission(payload, problem):
    with pytest.raises(BadInput, match="payload.messages.*" + problem):
        validate("llm_inference", payload)
