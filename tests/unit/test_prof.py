import time
from worlds import *
async def test_p(ledger, box):
    import httpx
    for i in range(3):
        t=time.perf_counter()
        async with ledger.transaction() as c: await c.exec_driver_sql(f"TRUNCATE {', '.join(TABLES)}")
        t1=time.perf_counter(); box.reset(); t2=time.perf_counter()
        n=Notion(token="ntn_test", api_url=f"{box.url}/notion", memory=Memory(ledger), requests_per_second=1000)
        t3=time.perf_counter(); r=Resend(api_key="re_test", api_url=f"{box.url}/resend", timeout=5); t4=time.perf_counter()
        await make_templates(n, box, COPY); t5=time.perf_counter()
        await n.close(); await r.close()
        print([round(x,3) for x in (t1-t,t2-t1,t3-t2,t4-t3,t5-t4)])
    async with ledger.transaction() as c:
        t=time.perf_counter()
        for x in TABLES: await c.exec_driver_sql(f"DELETE FROM {x}")
    print("delete", time.perf_counter()-t)
    assert 0
