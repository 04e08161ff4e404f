// Open WebUI as a user has it: the list of models, a chat that streams, a document and a question about it.
// Usage: node openwebui.mjs ADDRESS FOLDER_WITH_NODE_MODULES
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [address, home] = process.argv.slice(2);
const { chromium } = createRequire(`${home}/`)("playwright-core");

// It takes a minute to start.
const begun = Date.now();
for (;;) {
    const answer = await fetch(`${address}/health`).catch(() => null);
    if (answer?.ok) break;
    assert(Date.now() - begun < 240_000, "Open WebUI did not start; see webui.log");
    await new Promise((done) => setTimeout(done, 500));
}

const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: [...flags, ...quiet] });
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
page.setDefaultTimeout(60_000);
try {
    await page.goto(address, { waitUntil: "domcontentloaded" });
    await page.waitForSelector("#chat-input");
    // What is new in this version stands in front of everything.
    await page.getByRole("button", { name: /Okay, Let's Go/i }).click();

    await page.locator("button[id^=model-selector]").first().click();
    await page.getByText("minilm:latest").first().waitFor();
    assert((await page.getByText("lantern-guide:latest").count()) > 1, "the chosen model is in the list too");
    await page.keyboard.press("Escape");
    console.log("lists models");

    const ask = async (question) => {
        await page.locator("#chat-input").click();
        await page.keyboard.type(question);
        await page.keyboard.press("Enter");
    };
    // Every length the answer has on its way.
    await page.evaluate(() => {
        window.lengths = new Set();
        const look = () => {
            const answer = document.querySelector(".chat-assistant");
            if (answer) window.lengths.add(answer.innerText.trim().length);
        };
        new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
    });
    await ask("What is MCP?");
    await page.locator(".chat-assistant", { hasText: "Model Context Protocol" }).waitFor();
    // The buttons below an answer come when it is whole.
    await page.locator(".copy-response-button").first().waitFor();
    const lengths = await page.evaluate(() => [...window.lengths].filter((length) => length > 0));
    assert(lengths.length > 1, `the answer came at once, with lengths ${lengths}`);
    console.log(`chats: the answer grew in ${lengths.length} steps`);

    const processed = page.waitForResponse(async (reply) => reply.url().includes("/process/status") && (await reply.text()).includes("completed"));
    const text = "The lighthouse keeper of Brel is called Ansgar. He has two goats.\n".repeat(5);
    await page.locator("input[type=file]").first().setInputFiles({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from(text) });
    await processed;
    await ask("Who is the keeper?");
    await page.locator(".chat-assistant", { hasText: "Retrieved 1 source" }).waitFor();
    console.log("embeds a document and finds it again");
} catch (error) {
    await page.screenshot({ path: `${home}/failed.png` });
    throw error;
} finally {
    await browser.close();
}
