// SPDX-License-Identifier: MIT
import java.util.HashMap;
import java.util.Map;

/**
 * Threads with a hash map each, all filled by the main thread: they look up random keys, and now and then put a new
 * value in the place of one, which the collector takes.
 *
 *     java Maps MIB THREADS
 *
 * Says "ready" once the threads, named worker-0 and so on, are there, and works until it is killed.
 */
final class Maps {
    /** About what an entry takes, with its key and value. */
    private static final int BYTES_PER_ENTRY = 160;

    private static final int WORDS = 8;
    private static final int LOOKUPS_PER_PUT = 16;

    static volatile long result;

    public static void main(String[] arguments) throws InterruptedException {
        int threads = Integer.parseInt(arguments[1]);
        int entries = Integer.parseInt(arguments[0]) * (1 << 20) / BYTES_PER_ENTRY / threads;
        for (int number = 0; number < threads; number++) {
            Map<Long, long[]> map = new HashMap<>(2 * entries);
            for (long key = 0; key < entries; key++) {
                map.put(key, new long[WORDS]);
            }
            Thread thread = new Thread(() -> work(map, entries), "worker-" + number);
            thread.start();
        }
        System.out.println("ready");
        Thread.currentThread().join();
    }

    private static void work(Map<Long, long[]> map, int entries) {
        long state = 88172645463325252L;
        for (long turn = 1; ; turn++) {
            state ^= state << 13;
            state ^= state >>> 7;
            state ^= state << 17;
            Long key = Long.remainderUnsigned(state, entries);
            if (turn % LOOKUPS_PER_PUT == 0) {
                map.put(key, new long[WORDS]);
            } else {
                long[] found = map.get(key);
                found[0]++;
                result = found[1];
            }
        }
    }
}
