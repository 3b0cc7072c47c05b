import asyncio
import threading

import pytest
from scripted_engine import CONTEXT, ScriptedEngine, requests_over

from tenth.base.errors import ConfigError, QueueFull
from tenth.base.records import Finish
from tenth.engine.request import SamplingParams
from tenth.llm.async_llm import AsyncLLM
from tenth.llm.engine_thread import EngineFaultError, EngineStoppedError

TEN = SamplingParams(max_new_tokens=100)
SOON = 60  # seconds after which a test has failed; no test is meant to come near


class Gated(ScriptedEngine):
    """Steps only as often as it was let: the test decides what happens between two steps."""

    def __init__(self, answers, **settings):
        super().__init__(answers, **settings)
        self.gate = threading.Semaphore(0)

    def step(self):
        assert self.gate.acquire(timeout=SOON)
        return super().step()

    def let(self, num_steps):
        self.gate.release(num_steps)


def llm_saying(answers, kind=ScriptedEngine, **settings):
    engine = kind(answers, **settings)
    return AsyncLLM.over(requests_over(engine)), engine


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, SOON))


async def text_of(stream):
    return "".join([piece.text async for piece in stream])


def test_a_hundred_requests_share_the_steps_and_each_gets_its_own_answer():
    async def main():
        async with llm_saying({f"q{i}.": f"answer {i}" for i in range(100)})[0] as llm:
            return await asyncio.gather(*(llm.generate(f"q{i}.", TEN) for i in range(100)))

    assert [output.text for output in run(main())] == [f"answer {i}" for i in range(100)]


def test_pieces_come_while_the_answer_is_being_written():
    async def main():
        llm, engine = llm_saying({"q": "The answer"}, Gated)
        async with llm:
            stream = llm.stream("q", TEN)
            engine.let(1)
            first = await anext(stream)
            assert engine.num_steps == 1
            engine.let(100)
            return first.text, await text_of(stream)

    first, rest = run(main())
    assert first
    assert rest
    assert first + rest == "The answer"


def test_samples_are_told_apart_and_each_ends_once():
    async def main():
        async with llm_saying({"q": ["one two", "three", "four. five"]})[0] as llm:
            params = SamplingParams(max_new_tokens=100, n=3)
            return [piece async for piece in llm.stream("q", params, stop=["."])]

    pieces = run(main())
    texts = ["".join(piece.text for piece in pieces if piece.sample == sample) for sample in range(3)]
    assert texts == ["one two", "three", "four"]
    assert sorted(piece.sample for piece in pieces if piece.finish) == [0, 1, 2]


def test_a_conversation_is_written_as_the_model_was_trained():
    async def main():
        async with llm_saying({})[0] as llm:
            return llm.tokenizer.decode(
                await llm.render([{"role": "user", "content": "hi"}], prefill="<think>")
            )

    assert run(main()) == "<｜User｜>hi<｜Assistant｜><think>"


def test_a_reader_who_comes_late_gets_everything_in_one_piece():
    async def main():
        llm, engine = llm_saying({"q": "The answer is 42. hello world", "last": ""}, Gated)
        async with llm:
            stream = llm.stream("q", TEN)
            engine.let(1)
            begun = (await anext(stream)).text
            engine.let(1000)
            await llm.drain()  # everything is written before anything is read
            pieces = [piece async for piece in stream]
            assert len(pieces) == 1
            return begun + pieces[0].text

    assert run(main()) == "The answer is 42. hello world"


# endings


def test_cancelling_the_reader_aborts_its_request_and_no_other():
    async def main():
        llm, engine = llm_saying({"other": "hello"}, Gated)
        async with llm:
            doomed = asyncio.create_task(text_of(llm.stream("babble", TEN)))
            other = asyncio.create_task(llm.generate("other", TEN))
            engine.let(1)
            while engine.num_steps == 0:
                await asyncio.sleep(0)
            doomed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doomed
            engine.let(1000)
            output = await other
            await llm.drain()
            keys = [request.request_id for request in engine.requests if len(request.prompt_ids) > 0]
            assert engine.aborted == [(keys[0], None)]
            return output.text

    assert run(main()) == "hello"


def test_leaving_a_stream_aborts_its_request():
    async def main():
        llm, engine = llm_saying({}, Gated)
        engine.let(1)
        stream = llm.stream("babble", TEN)
        async for _ in stream:
            break
        await stream.aclose()
        engine.let(1000)
        await llm.drain()
        return len(engine.aborted), engine.num_steps

    aborted, steps = run(main())
    assert aborted == 1
    assert steps <= 2  # the one that may have begun before the abort was seen


def test_an_abort_by_name_ends_the_stream_with_what_is_certain():
    async def main():
        llm, engine = llm_saying({}, Gated)
        async with llm:
            stream = llm.stream("babble", TEN, stop=["ab"], request_id="mine")
            engine.let(1)
            pieces = [await anext(stream)]
            llm.abort("mine")
            llm.abort("somebody else's")
            engine.let(1)
            return pieces + [piece async for piece in stream]

    pieces = run(main())
    assert "".join(piece.text for piece in pieces).startswith("a")  # the "a" that was held back
    assert [piece.finish for piece in pieces][-1] is Finish.ABORTED


def test_closing_aborts_what_is_under_way_and_refuses_what_comes():
    async def main():
        llm, engine = llm_saying({}, Gated)
        task = asyncio.create_task(llm.generate("babble", TEN))
        engine.let(1)
        while engine.num_steps == 0:
            await asyncio.sleep(0)
        engine.let(1000)
        await llm.close()
        await llm.close()
        with pytest.raises(EngineStoppedError, match="the engine was closed"):
            llm.stream("q", TEN)
        return (await task).samples[0].finish

    assert run(main()) in (Finish.ABORTED, Finish.LENGTH)


def test_draining_lets_what_is_under_way_end_and_refuses_what_comes():
    async def main():
        llm, engine = llm_saying({"q": "hello"}, Gated)
        task = asyncio.create_task(llm.generate("q", TEN))
        await asyncio.sleep(0)
        draining = asyncio.create_task(llm.drain())
        await asyncio.sleep(0)
        with pytest.raises(EngineStoppedError):
            llm.stream("q", TEN)
        engine.let(1000)
        await draining
        return (await task).text

    assert run(main()) == "hello"


def test_one_that_was_never_used_can_be_closed():
    run(llm_saying({})[0].close())


# trouble


class Failing(ScriptedEngine):
    """Fails once three requests are there; or, when told so, in a way that leaves no engine."""

    is_mendable = True

    def step(self):
        if len(self.requests) < 3:
            return []  # nothing yet
        if len(self.requests) == 3:
            raise ZeroDivisionError("boom")
        return super().step()

    def abort(self, request_id, sample=None):
        if not self.is_mendable:
            raise OverflowError("no engine left")
        super().abort(request_id, sample)


async def three_answers(llm):
    tasks = (llm.generate("q", TEN) for _ in range(3))
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_a_fault_of_the_engine_reaches_everybody_who_waits_and_nobody_who_comes_later():
    async def main():
        async with llm_saying({"q": "hello"}, Failing)[0] as llm:
            return await three_answers(llm), (await llm.generate("q", TEN)).text

    errors, later = run(main())
    for error in errors:
        assert isinstance(error, EngineFaultError)
        assert isinstance(error.__cause__, ZeroDivisionError)
    assert later == "hello"


def test_a_fault_that_leaves_no_engine_reaches_everybody_who_comes_too():
    async def main():
        llm, engine = llm_saying({}, Failing)
        engine.is_mendable = False
        errors = await three_answers(llm)
        with pytest.raises(EngineStoppedError, match=r"past mending .*no engine left"):
            llm.stream("q", TEN)
        with pytest.raises(EngineStoppedError):
            await llm.call(engine.abort)
        await llm.close()
        return errors

    assert [type(error) for error in run(main())] == [EngineStoppedError] * 3


@pytest.mark.parametrize("prompt", ["x" * CONTEXT, []])
def test_a_prompt_that_cannot_be_run_raises_where_it_is_asked(prompt):
    llm, engine = llm_saying({})
    with pytest.raises(ConfigError):
        llm.stream(prompt, TEN)
    assert not engine.requests


def test_a_full_queue_is_the_trouble_of_the_one_who_came_and_not_of_the_engine():
    async def main():
        llm, engine = llm_saying({"q": "hello"}, max_requests=0)
        async with llm:
            with pytest.raises(QueueFull):
                await llm.generate("q", TEN)
            engine.max_requests = 1
            return (await llm.generate("q", TEN)).text

    assert run(main()) == "hello"


def test_two_requests_under_way_cannot_have_one_name_but_one_after_the_other_can():
    async def main():
        async with llm_saying({"q": "hello"})[0] as llm:
            stream = llm.stream("q", TEN, request_id="a")
            await anext(stream)
            with pytest.raises(ConfigError, match="request_id = a is under way already"):
                llm.stream("q", TEN, request_id="a")
            await text_of(stream)
            return (await llm.generate("q", TEN, request_id="a")).text

    assert run(main()) == "hello"


def test_a_call_runs_in_the_engines_thread_and_its_fault_is_the_callers_own():
    async def main():
        async with llm_saying({"q": "hello"})[0] as llm:
            name = await llm.call(lambda: threading.current_thread().name)
            with pytest.raises(ZeroDivisionError):
                await llm.call(lambda: 1 // 0)
            return name, (await llm.generate("q", TEN)).text

    assert run(main()) == ("tenth-engine", "hello")


def test_a_loop_that_is_gone_does_not_stop_the_engine():
    llm, engine = llm_saying({"q": "hello"}, Gated)

    async def leave():
        stream = llm.stream("babble", TEN)
        engine.let(1)
        await anext(stream)
        return stream  # the loop ends while the request is under way

    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(leave())
    loop.close()
    engine.let(1000)

    async def main():
        async with llm:
            return (await llm.generate("q", TEN)).text

    assert run(main()) == "hello"
    assert len(engine.aborted) == 1
    del stream
