from worlds import World
async def test_one(world: World) -> None:
    (who,) = await world.enrolled()
    await world.send()
    assert world.mailed() == [who]
async def test_two(world: World) -> None:
    (who,) = await world.enrolled()
    await world.send()
    assert world.mailed() == [who]
async def test_three(world: World) -> None:
    who = await world.enrolled(100)
    await world.send()
    assert world.mailed() == sorted(who)
