import type { Command } from "commander";
import { addImageOptions, type ImageFlags } from "../options.ts";
import type { Output } from "../output.ts";

const EXAMPLE = `
Example:
  multifd-helper inspect vm.mfd
  multifd-helper inspect --xml /var/lib/libvirt/qemu/save/web.save >web.xml

Knows images of multifd-helper, of libvirt and of QEMU alone (mapped-ram, or the stream as it came). Only the index is read,
where there is one: verify reads everything.`;

export function addInspectCommand(program: Command, output: Output): void {
  addImageOptions(program.command("inspect"))
    .option("--xml", "print the domain's XML, secrets included, and nothing else (images of libvirt)")
    .description("Tells what an image is, whether it is sealed, and what the destination QEMU must be.")
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, { offset, xml }: ImageFlags & { readonly xml?: true }) => {
      const { domainXml } = await import("../../control/foreign/domain-xml.ts");
      const { inspect } = await import("../../control/inspect.ts");
      if (xml) {
        const text = await domainXml({ image, offset });
        await output.answer({ xml: text }, text);
        return;
      }
      const { describeImage } = await import("../inspect-page.ts");
      const report = await inspect({ image, offset });
      await output.answer(report, describeImage(report));
    });
}
