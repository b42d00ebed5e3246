/** A pool's code that finds no descriptor left when it is loaded. */
throw Object.assign(new Error("EMFILE: too many open files, open 'feed.js'"), { code: "EMFILE" });
