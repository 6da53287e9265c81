/* SPDX-License-Identifier: MIT */
/*
 * The whole interface of the native core. The C compiler reads it through core.h and cffi reads it as it stands, so it
 * holds plain declarations and integer constants only.
 *
 * Conventions: every function returns 0 or -errno and gives its results in the last parameter, `ret`, which it clears
 * first. Ranges are [start, end), aligned to their step. "pages" are base pages of 4096 bytes, whatever holds them: a huge
 * page of 2 MiB counts 512. Times are of CLOCK_MONOTONIC.
 */
#define BAL_PAGE_BYTES 4096
#define BAL_NODES 1024 /* MAX_NUMNODES with CONFIG_NODES_SHIFT=10, the largest that kernels are built with */
#define BAL_ERRNOS 134 /* EHWPOISON, the largest of errno-base.h and errno.h, is 133; index 0 takes any larger one */
#define BAL_CALL_TIMES 64 /* calls whose seconds are told one by one */
#define BAL_COMM 64    /* a kworker's name in /proc/PID/stat has up to 64 bytes (fs/proc/array.c, proc_task_name) */

struct bal_range {
	uint64_t start;
	uint64_t end;
	uint64_t step_bytes; /* bytes of one page there: 4096, or the huge page size of a hugetlb mapping */
};

struct bal_placement {
	uint64_t on_node[BAL_NODES]; /* pages found on each node */
	uint64_t by_errno[BAL_ERRNOS]; /* pages that have no node, and why: ENOENT is absent, EFAULT the zero page or no VMA */
	uint64_t queried;	     /* the sum of on_node, by_errno and unwritten */
	uint64_t unwritten;	     /* pages whose status the kernel left as it was */
	uint64_t calls;
	double seconds;
	double longest_call_seconds;
};

/*
 * Where the pages of `ranges` are, by move_pages(2) with nodes=NULL. samples=0 asks for every page; else `samples`
 * single pages at equal distances over all pages of all ranges taken in a row, starting at phase (0 <= phase < 1) of
 * that distance. per_range (n_ranges rows of n_nodes + 2, or NULL) gets the pages of each range on node 0..n_nodes-1,
 * then those absent, then all others. Errors: EINVAL (argument; or a process without memory of its own), ESRCH, EPERM.
 */
int bal_placement(int pid, const struct bal_range *ranges, size_t n_ranges, uint64_t samples, double phase,
		  uint32_t n_nodes, uint64_t *per_range, struct bal_placement *ret);

/* What a mapping holds; as VmaKind in model/sample.py. */
#define BAL_ANON 0
#define BAL_HEAP 1
#define BAL_STACK 2
#define BAL_FILE 3
#define BAL_SHMEM 4
#define BAL_HUGETLB 5
#define BAL_SPECIAL 6

#define BAL_SHARED 1
#define BAL_EXECUTABLE 2
#define BAL_PROGRAM 4 /* a file of which some mapping is executable, but for what the process writes to */
#define BAL_GUARDED 8 /* what ends where it begins is a guard: BAL_GUARD_BYTES at most, without any permission */
#define BAL_OWN 16 /* private and writable */
#define BAL_GUARD_BYTES 65536

#define BAL_STRATA 16
#define BAL_HUGETLB_STRATUM 8 /* the first of those for hugetlb pages */
#define BAL_NO_STRATUM 255

struct bal_vma {
	uint64_t start;
	uint64_t end;
	uint64_t inode;
	uint32_t device; /* major << 20 | minor */
	uint32_t name_at; /* of the text */
	uint32_t name_bytes;
	uint8_t kind;
	uint8_t flags;
	uint8_t stratum; /* BAL_NO_STRATUM: nothing is asked of it */
};

/* A device whose mappings hold no ordinary files: a mount of tmpfs or hugetlbfs. */
struct bal_device {
	uint32_t device;
	uint32_t kind;
	uint64_t page_bytes; /* of hugetlbfs; 0: not known */
};

struct bal_maps {
	uint64_t n_vmas;
	uint64_t error_line; /* the first that is not a mapping, from 1; 0: none */
	uint64_t pages[BAL_STRATA];	 /* base pages of each stratum */
	uint64_t unit_bytes[BAL_STRATA]; /* what one question is about there: a base page or a hugetlb page */
};

/*
 * Parse the text of /proc/PID/maps into the mappings that have any permission, ascending. Mappings of base pages share a
 * stratum when their numbers of pages have about as many digits: stratum = bit length / 6. Those of hugetlb pages have
 * strata of their own, by page size: that of their device, or else huge_bytes; 0 asks them like base pages. capacity must
 * be the number of lines. Errors: EBADMSG (see error_line), EINVAL (argument, or text beyond 4 GiB), ENOMEM, ENOSPC.
 */
int bal_parse_maps(const char *text, size_t length, const struct bal_device *devices, size_t n_devices,
		   uint64_t huge_bytes, struct bal_vma *vmas, size_t capacity, struct bal_maps *ret);

struct bal_tally {
	uint64_t asked;	  /* units asked for */
	uint64_t present; /* of these on a node below n_nodes */
	uint64_t units;	  /* all of the strata */
	uint64_t n_rows;
	uint64_t on_node[BAL_NODES];
	/* Of the pairs: in so many just one page is on the node; and of these, in so many the other page is on no node. */
	uint64_t differ[BAL_NODES];
	uint64_t alone[BAL_NODES];
	uint64_t calls;
	double seconds;
};

/*
 * Ask move_pages(2) where units (pages, or hugetlb pages) of the mappings are whose stratum has its bit in `strata`, which
 * must be of one unit. Units are numbered through all these mappings, from one chosen by chance on, and cut into `questions`
 * / 2 cells of as many units each, give or take one; two units of each cell, chosen by chance, are asked for. An odd number
 * of questions is one less; as many as there are units ask for every one. `seed` makes the chance. rows (n_nodes + 3
 * columns: index of the mapping, units on node 0..n_nodes-1, absent, others) gets one row for each mapping asked about,
 * but that asked first may have another at the end. Errors: EINVAL, ESRCH, EPERM, ENOSPC (rows).
 */
int bal_sample(int pid, const struct bal_vma *vmas, size_t n_vmas, const struct bal_maps *maps, uint32_t strata,
	       uint64_t questions, uint64_t seed, uint32_t n_nodes, uint64_t *rows, size_t row_capacity,
	       struct bal_tally *ret);

/*
 * Count the base pages of each mapping by node from the text of /proc/PID/numa_maps. rows are as for bal_sample(), one for
 * each mapping that holds any page, absent and others 0; asked and units are 0. Errors: EBADMSG, EINVAL, ENOSPC.
 */
int bal_count_numa_maps(const char *text, size_t length, const struct bal_vma *vmas, size_t n_vmas, uint32_t n_nodes,
			uint64_t *rows, size_t row_capacity, struct bal_tally *ret);

struct bal_cursor {
	uint64_t range;	  /* index into the ranges; n_ranges when all is done */
	uint64_t address; /* next page to look at; anything below the range's start means the start */
	int32_t base;	  /* not 0: the last blocks held single base pages, so do not try them as one huge page */
};

/* Pages next to each other, [start, end) in pages of page_bytes, that fared alike. */
struct bal_run {
	uint64_t start;
	uint64_t end;
	uint64_t page_bytes;
	int32_t source;
	int32_t target;
	int32_t error; /* 0: moved from source to target; an errno: stayed; -1: nothing is known */
};

struct bal_migrate_args {
	int32_t node;	      /* where to, if target_of is NULL */
	int32_t flags;	      /* MPOL_MF_MOVE (2) or MPOL_MF_MOVE_ALL (4) */
	int32_t pidfd;	      /* above 0: as soon as it tells that the process has ended, ESRCH in place of another call */
	uint64_t batch_pages; /* the most pages that one call moves, though never less than one folio */
	uint64_t group_pages; /* the kernel unmaps and copies about so many pages together; 0: as many as it likes */
	uint64_t step_pages;  /* the step ends with the batch that submits the so many-th page */
	uint64_t look_pages;  /* the step ends at the first block after so many pages looked at */
	uint64_t huge_bytes;  /* size of a transparent huge page (PMD); 0 never tries them whole, and says there are none */
	uint64_t large_room;  /* pages that huge ones may take of the targets; UINT64_MAX: as many as there are */
	const int32_t *target_of; /* for each node below n_target_of where its pages go; -1: they are left alone */
	uint32_t n_target_of;
	struct bal_run *runs; /* what became of which pages, in the order in which it became known */
	uint64_t run_capacity;
};

struct bal_migration {
	/* looked == already_on_target + left_alone + absent + other_before + no_room + submitted */
	uint64_t looked;
	uint64_t already_on_target;
	uint64_t left_alone; /* on a node that has no target */
	uint64_t absent;
	uint64_t other_before; /* had an error in place of a node before anything was moved */
	uint64_t no_room;      /* would not fit into large_room */
	uint64_t before_errno[BAL_ERRNOS]; /* sums to other_before */
	/* submitted == moved + sum(by_errno) + not_attempted + unwritten */
	uint64_t submitted;
	uint64_t moved;
	uint64_t by_errno[BAL_ERRNOS];
	uint64_t not_attempted;
	uint64_t unwritten;	       /* attempted, no status, and no answer where they are now */
	uint64_t from_node[BAL_NODES]; /* moved, by the node they came from */
	uint64_t refused;	       /* of by_errno[EBUSY]: attempted and not moved, but the kernel gave no status */
	uint64_t stuck;		       /* of by_errno[EBUSY]: not tried, as their huge page had failed by its first address */
	uint64_t n_runs;
	uint64_t unrecorded; /* moved or failed pages that the runs have no room for */
	uint64_t whole_folios;	       /* transparent huge pages moved by one address each */
	uint64_t calls;
	uint64_t resubmissions;
	uint64_t query_calls;
	uint64_t largest_call_pages;   /* of the calls that move */
	double seconds;		       /* in calls that move */
	double query_seconds;
	double longest_call_seconds;   /* of the calls that move */
	double call_seconds[BAL_CALL_TIMES]; /* of the first calls that move */
	int32_t error;		       /* errno of the call that ended the step early, or 0 */
	int32_t error_target;	       /* where the pages were to go that the call failed on, or -1 */
	int32_t done;		       /* the cursor is behind the last range */
	int32_t highest_node;	       /* largest index of from_node in use, or -1 */
};

/*
 * One bounded step of moving `ranges` to a node, or each page to the one that its own node is mapped to: looks at pages
 * from the cursor on, moves those that are present elsewhere, and puts the cursor behind the last page finished. An
 * error of a call ends the step: it is ret->error. After it, or when too many groups of pages failed in one call, the
 * cursor stands at the first page that was not attempted; such pages are counted as not_attempted, and again by a later
 * step. Errors returned: EINVAL (argument), ENOMEM (working memory of up to 100 bytes a page of the batch).
 */
int bal_migrate(int pid, const struct bal_range *ranges, size_t n_ranges, const struct bal_migrate_args *args,
		struct bal_cursor *cursor, struct bal_migration *ret);

/*
 * migrate_pages(2): all pages of a process on the nodes of one mask to those of the other, in one call. Masks have
 * BAL_NODES bits. *ret gets the pages that were not moved. Errors: ESRCH, EPERM, EINVAL (a node that the process may not
 * use or that has no memory, or a process without memory of its own), ENOMEM.
 */
int bal_migrate_process(int pid, const uint64_t *sources, const uint64_t *targets, int64_t *ret);

struct bal_evict_args {
	int32_t advice;	      /* MADV_COLD (20) or MADV_PAGEOUT (21) */
	uint64_t batch_pages; /* the most pages that one step advises, though never less than one hugetlb page */
	uint64_t look_pages;  /* the step ends at the first block after so many pages looked at */
};

struct bal_eviction {
	/* looked == absent + other + advised; advised == evicted + kept */
	uint64_t looked;
	uint64_t absent;
	uint64_t other; /* had an error in place of a node before anything was advised */
	uint64_t advised;
	uint64_t evicted; /* were present, and are not any more */
	uint64_t kept;
	uint64_t refused; /* of kept: in or near a mapping that takes no advice: locked, hugetlb, a device's */
	uint64_t calls;
	uint64_t query_calls;
	double seconds; /* in calls that advise */
	double query_seconds;
	double longest_call_seconds;
	double call_seconds[BAL_CALL_TIMES]; /* of the first calls that advise */
	int32_t error;			     /* errno of the call that ended the step early, or 0 */
	int32_t done;			     /* the cursor is behind the last range */
};

/*
 * One bounded step of giving back the pages of `ranges`, by one process_madvise(2) or a few, of pages that are present.
 * The cursor is put behind the last page advised; after an error, which is ret->error, at the first one not advised.
 * Only range and address of the cursor count. Errors returned: EINVAL (argument), ENOMEM (working memory).
 */
int bal_evict(int pid, int pidfd, const struct bal_range *ranges, size_t n_ranges, const struct bal_evict_args *args,
	      struct bal_cursor *cursor, struct bal_eviction *ret);

/* Seconds that a call costs which moves no page: the part of each call that the target does not feel. */
int bal_idle_call(double *ret);

/*
 * What is remembered of one process between passes. The caller keeps an array of these, which a pass keeps in order of
 * pid; it must not be changed in between. A fresh array needs no preparation.
 */
struct bal_seat {
	uint64_t start_ticks; /* after boot; with pid, the identity of a process */
	uint64_t cpu_ticks;   /* utime + stime */
	uint64_t run_ticks;   /* cpu_ticks less those of the reading before */
	uint64_t faults;      /* minor and major ones */
	uint64_t rss_pages;
	uint64_t read_ticks;   /* boot_ticks of the last reading, */
	uint64_t before_ticks; /* and of the one before */
	double read_at;	       /* now_seconds of the last reading; negative: never tried */
	double cpu_cores;      /* between the last two readings */
	double faults_per_second;
	double told_cores; /* as they were when the process was last told */
	double told_faults_per_second;
	uint64_t told_rss_pages;
	uint64_t told_age_ticks;
	int32_t pid;
	int32_t fd; /* of its stat, kept open; or -1 */
	int32_t n_threads;
	int32_t last_cpu;
	uint32_t flags;	   /* PF_* of include/linux/sched.h */
	int32_t readings;  /* 0: its stat was never understood; 1; 2 or more: there are rates */
	int32_t is_told;   /* the caller knows it as a large process, */
	int32_t told_loud; /* and as a loud one */
	int32_t is_loud;   /* large and busy at its last reading */
	int32_t changed;   /* its name or number of threads, since it was told */
	char comm[BAL_COMM + 1];
};

struct bal_survey_args {
	double now_seconds;
	uint64_t boot_ticks; /* since boot, on the clock of start_ticks */
	double ticks_per_second;
	uint64_t min_rss_pages; /* large: so many and more */
	double min_cpu_cores;	/* busy: so many and more */
	double idle_seconds;	/* how often to read large processes that are not busy, */
	double small_seconds;	/* small ones, and those that could not be read, */
	double kernel_seconds;	/* kernel threads */
	uint64_t max_kept;	/* the most descriptors kept open */
	int32_t busy_is_large;	/* small processes that are busy count as large */
	int32_t no_listing;	/* look only at processes that have a seat: new ones are found by a later pass */
};

struct bal_survey {
	uint64_t n_seats;	 /* in use */
	uint64_t needed;	 /* seats; more than the capacity: nothing was done */
	uint64_t n_told;
	uint64_t n_dropped;
	uint64_t processes;	 /* read at least once and understood, now or earlier */
	uint64_t kernel_threads; /* of these */
	uint64_t read;		 /* in this pass */
	uint64_t kept;		 /* descriptors that are open */
	uint64_t vanished;	 /* gone between the listing and the reading: normal */
	uint64_t unreadable;	 /* any other error, or text that is not a stat line */
	double seconds;
};

/*
 * One pass over the processes below proc_fd, a directory (O_PATH will do) that is or looks like /proc. They are listed;
 * PID/stat is read of those that are due: new ones and loud ones (large and busy) in each pass, large ones of which no
 * rates are known yet, and the others each in its turn, so that no pass reads all of them. Small ones that started less
 * than small_seconds ago are read like large ones, since they may be about to grow. `told` gets the seats of
 * large processes that are new, loud, or not as they were told: another name or number of threads, no longer loud, RSS
 * by more than 1/64, 0.01 cores, faults by a quarter and 10 a second, or twice as old. `dropped` gets the pids of told
 * processes that are gone or no longer large; one of them may be told anew. All three arrays have `capacity` elements,
 * of which n_seats seats are in use. Errors: those of openat(2) and getdents64(2), ENOMEM (4 bytes a process).
 */
int bal_survey(int proc_fd, const struct bal_survey_args *args, struct bal_seat *seats, size_t n_seats, size_t capacity,
	       uint32_t *told, int32_t *dropped, struct bal_survey *ret);

/* Close the descriptors that the seats keep. */
int bal_close_seats(struct bal_seat *seats, size_t n_seats);

/*
 * Write the pids of the processes whose name began with `beginning` at its last reading, as many as there is room for;
 * ret tells how many there are.
 */
int bal_named_seats(const struct bal_seat *seats, size_t n_seats, const char *beginning, int32_t *pids, size_t capacity,
		    uint64_t *ret);

/* What is remembered of one thread; kept in order of tid. */
struct bal_thread_seat {
	uint64_t start_ticks;
	uint64_t cpu_ticks;
	int32_t tid;
	int32_t is_read; /* 0: listed, but never read so far */
	int32_t idle;	 /* readings in a row at which it had not run */
	int32_t in_pass; /* tried in this pass */
};

struct bal_thread_args {
	uint64_t since_ticks;	     /* what started then or later counts whole when it is first read */
	uint64_t expected_ticks;     /* what the whole process ran; once as much is found, idle threads are mostly left out */
	uint32_t shares;	     /* read one of so many shares of the threads, */
	uint32_t turn;		     /* each in its turn: the number of the pass */
	const int32_t *node_of_cpu;  /* -1: none */
	uint32_t n_cpus;
	uint32_t n_nodes; /* one more than the highest node of node_of_cpu */
};

struct bal_thread_survey {
	uint64_t n_seats; /* threads listed */
	uint64_t needed;  /* seats; more than the capacity: nothing was done */
	uint64_t read;
	uint64_t vanished;
	uint64_t unreadable;
	double seconds;
};

/*
 * Read task/TID/stat of a share of the threads of one process, and add to run_ticks (n_nodes) what each ran since it
 * was last read, by the node of the CPU on which it ran last. Of a thread that is read for the first time nothing is
 * known, unless it started at since_ticks or later. Those that ran lately, and new ones, are read first. When they
 * explain nine tenths of expected_ticks, only an eighth of the others is read, else all. Threads that are not read, and
 * those of other shares, keep their seat: what they run is found later. Errors: ESRCH when the process is gone, ENOMEM.
 */
int bal_threads(int proc_fd, int pid, const struct bal_thread_args *args, struct bal_thread_seat *seats, size_t n_seats,
		size_t capacity, uint64_t *run_ticks, struct bal_thread_survey *ret);

#define BAL_ACCESS_SLOTS 16   /* nodes that are told apart */
#define BAL_ACCESS_UNIT 1024  /* weight of one sample; a page's weight stays below 50 of them */

/*
 * Who accesses which page of one process. The caller owns the memory; it lies there as open addressing by page. Zeroed
 * counters of a fresh table are set by bal_access_start(), and bal_access_add() adds to them.
 */
struct bal_access_table {
	void *cells;
	const int8_t *slot_of_cpu; /* the node of each CPU as a number below n_slots, -1: none */
	uint64_t capacity;	   /* cells */
	uint64_t limit;		   /* pages; from there on one leaves for each that comes */
	uint64_t pages;
	uint64_t taken; /* == counted + touches + unknown_cpus */
	uint64_t counted;
	uint64_t touches;
	uint64_t unknown_cpus;
	uint64_t lost_pages; /* that left for others, */
	uint64_t lost_samples; /* and how often they had been seen */
	uint32_t n_cpus;
	uint32_t n_slots;
	uint32_t cell_bytes;
};

struct bal_access {
	uint64_t address;
	uint64_t time_ns;
	uint32_t tid; /* not 0 */
	uint32_t cpu;
};

/* Make an empty table in zeroed memory, aligned to 8 bytes. Errors: EINVAL (slots, or less than one cell). */
int bal_access_start(void *memory, uint64_t bytes, uint32_t n_slots, const int8_t *slot_of_cpu, uint32_t n_cpus,
		     struct bal_access_table *ret);

/*
 * Count accesses: the weights of the page fall to 0.98, and that of the node of the CPU rises by one sample. With
 * first_is_touch the first access of a page that is not known only makes it known. A page for which there is no room
 * takes the place of the one that was seen least often for its time, of a few.
 */
int bal_access_add(const struct bal_access *accesses, size_t n, int first_is_touch, struct bal_access_table *table);

struct bal_access_page {
	uint64_t first_ns; /* to a sixteenth of a second, as last_ns */
	uint64_t last_ns;
	uint32_t tid; /* the only thread seen, 0: several */
	uint32_t samples;
	uint32_t threads; /* one bit of 16 for each thread seen, by a hash of its tid */
	uint32_t weight[BAL_ACCESS_SLOTS];
};

/* What is known of one page. Errors: ENOENT. */
int bal_access_look(const struct bal_access_table *table, uint64_t address, struct bal_access_page *ret);

/* Forget the pages that were last accessed before a time; ret tells how many. */
int bal_access_forget(struct bal_access_table *table, uint64_t before_ns, uint64_t *ret);

struct bal_access_rule {
	double min_share;
	double region_share;
	double mixed_share;
	double z;
	uint32_t min_samples;
	uint32_t sole_samples;
	uint32_t region_pages;
};

struct bal_access_run {
	uint64_t start;
	uint64_t end;
	uint64_t last_ns;
	uint64_t judged;      /* pages */
	uint64_t weight;      /* of all samples there */
	uint64_t node_weight; /* of those from its node */
	int32_t slot;
	int32_t mixed;
};

struct bal_access_region {
	uint64_t start;
	uint64_t last_ns;
	uint64_t weight[BAL_ACCESS_SLOTS];
	uint32_t pages;
	uint32_t judged;
	int32_t slot; /* of the whole region, -1: none */
	int32_t mixed;
};

struct bal_access_judge_args {
	struct bal_access_rule rule;
	uint64_t since_ns; /* pages last accessed earlier are left out */
	uint64_t *scratch; /* two for each page of the table */
	struct bal_access_run *runs;
	uint64_t run_capacity;
	struct bal_access_region *regions;
	uint64_t region_capacity;
};

struct bal_access_judgement {
	uint64_t pages; /* looked at */
	uint64_t judged;
	uint64_t n_runs;
	uint64_t missed_runs; /* for which there was no room */
	uint64_t n_regions;
	uint64_t missed_regions;
	uint64_t mixed_regions;
	double seconds;
};

/*
 * Which node each page belongs to, as runs of pages next to each other, and what is known of each region of 2 MiB, both
 * ascending. A page is judged on its own by min_samples samples when the lower bound of its best node's share (Wilson,
 * at z) is above min_share, or by sole_samples of one node and one thread. A region whose judged pages agree is one run
 * from its first page to its last, if region_pages pages and min_samples samples were seen there and the lower bound for
 * all is above region_share. Otherwise pages between two judged ones of one node go with them, unless one of them was
 * seen with more samples from elsewhere. Mixed: two nodes have mixed_share of the judged pages each.
 */
int bal_access_judge(const struct bal_access_table *table, const struct bal_access_judge_args *args,
		     struct bal_access_judgement *ret);

#define BAL_RING_REGISTERS 0 /* kinds of events */
#define BAL_RING_FAULTS 1
#define BAL_RING_MEMORY 2

#define BAL_REGISTERS 29 /* general registers of aarch64 but the frame's, the link's and the stack's; x86-64 has 15 */
#define BAL_RECENT 64

/* Addresses in which a register counts as an access: [start, end), ascending, apart from each other. */
struct bal_span {
	uint64_t start;
	uint64_t end;
};

#define BAL_EVENTS 8

/* A hardware event that tells loads, stores, or both: as sysfs describes it, see perf_event_open(2). */
struct bal_event {
	uint64_t config[3]; /* config, config1, config2 */
	uint64_t period;    /* a sample each so many events */
	uint32_t type;
	uint32_t precise;     /* precise_ip */
	int32_t is_auxiliary; /* takes no samples: the next event wants it in its group, before itself */
};

struct bal_ring_args {
	int32_t tid; /* 0: the calling thread */
	int32_t kind;
	uint32_t frequency_hz; /* of the thread's run time; of no meaning for faults */
	uint32_t ring_pages;   /* a power of two */
	int32_t user_only;     /* not while the kernel works for the thread */
	int32_t first_is_touch; /* the first fault of a page that is not known is its first touch, and no access */
	uint32_t n_events; /* of memory alone */
	struct bal_event events[BAL_EVENTS];
};

/* The event of one thread, and its ring of records. */
struct bal_ring {
	void *map; /* the page that tells how far the kernel has written, and the records behind it */
	uint64_t map_bytes;
	uint64_t data_bytes;	     /* of the records, a power of two */
	uint64_t recent[BAL_RECENT]; /* values that pointed into the spans lately, by their hash */
	int32_t fd;
	int32_t tid;
	int32_t kind;
	int32_t first_is_touch;
	uint32_t n_events;
	int32_t event_fd[BAL_EVENTS]; /* of memory: the first that takes samples has the ring, and is fd */
};

/*
 * Begin to sample a thread. Errors: those of perf_event_open(2) and of mmap(2) for its ring, EINVAL (argument), and
 * EOPNOTSUPP for registers on other machines than x86-64 and aarch64. All events of memory go into one ring.
 */
int bal_ring_open(const struct bal_ring_args *args, struct bal_ring *ret);

/* Another rate, from the next sample on. Errors: those of PERF_EVENT_IOC_PERIOD. */
int bal_ring_rate(const struct bal_ring *ring, uint32_t frequency_hz);

/* Another period of one of the events of memory, from about the next sample on. Errors: those of PERF_EVENT_IOC_PERIOD. */
int bal_ring_period(const struct bal_ring *ring, uint32_t event, uint64_t period);

int bal_ring_close(struct bal_ring *ring);

/* How an instruction makes the address that it accesses: base + (index << shift) + displacement. */
struct bal_operand {
	uint64_t ip; /* where a thread was to go on; 0: nothing is known */
	int64_t displacement;
	int8_t base; /* place among the registers of a sample, -1: none */
	int8_t index;
	uint8_t shift;
	uint8_t length;	  /* of the instruction, bytes */
	uint8_t is_known; /* 0: it accesses nothing, or the stack, or nobody knows what */
	uint8_t is_lost;  /* it overwrites one of the registers that made the address */
};

#define BAL_OPERANDS 1024
#define BAL_CODE_BEFORE 64

/* The instruction that the bytes begin with. Errors: ENOENT when they do not make a whole one. */
int bal_decode(const uint8_t *code, size_t n, struct bal_operand *ret);

/* The instruction that the bytes, BAL_CODE_BEFORE at most, end with, as far as one can tell. Errors: ENOENT, EINVAL. */
int bal_decode_last(const uint8_t *code, size_t n, struct bal_operand *ret);

struct bal_drain {
	/* samples == with_access + elsewhere + repeated + no_registers + no_address + near + far */
	uint64_t samples;
	uint64_t with_access;
	uint64_t elsewhere;
	uint64_t repeated;     /* pointed into the spans, but only where they did before */
	uint64_t no_registers; /* the thread had none of a user's: it was ending */
	uint64_t no_address;   /* neither a load nor a store, or nobody knows where to */
	uint64_t near;	       /* a cache of the core itself had it: L1, its fill buffers, L2 */
	uint64_t far;	       /* another cache had it, or nobody knows who did */
	uint64_t in_kernel;    /* of samples */
	uint64_t stores;       /* of samples */
	uint64_t framed;       /* of samples: those that told where in the machine's memory the page lay */
	uint64_t busiest;      /* samples and lost ones of the ring that had most of them */
	uint64_t cycles;       /* that accesses took, as far as the hardware told */
	uint64_t accesses;
	uint64_t exact;	       /* of accesses: by the operand of an instruction */
	uint64_t code_reads; /* instructions fetched from the process */
	uint64_t lost;
	uint64_t cut; /* left out, since a ring was full by then; not of `samples` */
	uint64_t throttled;
	uint64_t unthrottled;
	uint64_t foreign; /* records of other types or lengths */
	double seconds;
};

/*
 * Take all records out of the rings, and count what they tell as accesses: the pages that registers point into, each
 * once a sample; or the address of a fault; or that of a load or store that went to memory, past all caches, since
 * where a page lies is nothing to those that did not. A value in a register that is among the last of its thread that pointed into the spans does not count again: it is the start of an array, or another place that is kept and
 * not gone to. With `operands` (BAL_OPERANDS, of no meaning before or after) the instruction before the one that the
 * thread was to go on with is read from process `pid`, on x86-64, since it is there that a thread which waits for memory is
 * found; or else that one. An address that it makes in the spans counts each time, in place of the registers that make it.
 *
 * A ring that is full has the samples of the beginning alone, and the kernel tells what it lost with its next record. What
 * other rings have of later than its last sample is left out (`cut`): else busy threads would lose most, and what all
 * share would seem to belong to the others. So what is counted is right, as far as it goes, and `lost` does not speak
 * against it. Not so for faults, where each says something that nothing else will say until the next scan.
 */
int bal_rings_drain(struct bal_ring *rings, size_t n_rings, const struct bal_span *spans, size_t n_spans, int pid,
		    struct bal_operand *operands, struct bal_access_table *table, struct bal_drain *ret);
