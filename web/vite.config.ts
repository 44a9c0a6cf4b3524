import { svelte } from "@sveltejs/vite-plugin-svelte";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { defineConfig } from "vite";

const PAGE = "../src/loratelier/studio/page";
const SOURCES = ["index.html", "package-lock.json", "vite.config.ts", "src", "public"];

function files(path: string): string[] {
  try {
    return readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((each) => each.isFile())
      .map((each) => join(each.parentPath, each.name));
  } catch {
    return [path];
  }
}

/** The hash that a test holds against the sources: sha256 over each path and content, by path. */
function stamp() {
  return {
    name: "stamp",
    closeBundle() {
      const all = SOURCES.flatMap((each) => files(each)).map((f) => relative(".", f).split(sep).join("/"));
      const digest = createHash("sha256");
      for (const file of all.sort()) digest.update(file).update("\0").update(readFileSync(file)).update("\0");
      writeFileSync(join(PAGE, "sources.sha256"), digest.digest("hex") + "\n");
    },
  };
}

export default defineConfig({
  plugins: [svelte(), stamp()],
  build: {
    outDir: PAGE,
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    // Small files would become data: addresses, which the page's policy refuses for scripts.
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    rollupOptions: {
      output: {
        entryFileNames: "assets/page.js",
        assetFileNames: "assets/page[extname]",
        inlineDynamicImports: true,
      },
    },
  },
});
