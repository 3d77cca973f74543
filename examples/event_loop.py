"""In a running event loop, which goes on while it dreams."""

import asyncio

import phosphene


async def main() -> None:
    """Count while a dream is dreamed."""
    counted = 0

    async def count() -> None:
        nonlocal counted
        while True:
            await asyncio.sleep(0.01)
            counted += 1

    counting = asyncio.create_task(count())
    await phosphene.dream_async("sample:coffee", size=64, steps=3, octaves=1)
    async for step in phosphene.steps("sample:coffee", size=64, steps=2, octaves=1):
        print(f"step {step.step} of {step.steps}")
    counting.cancel()
    assert counted > 5


asyncio.run(main())
