// The place where a video is chosen, dropped or recorded. It is shown from this machine, sent to
// `clip`, and what comes back, a token, is the component's value.
const find = selector => element.querySelector(selector);
const [drop, file, video, status] = [".nl-drop", "input", "video", ".nl-status"].map(find);
const [bar, record, example] = ["progress", ".nl-record", ".nl-example"].map(find);
const { megabytes, seconds } = drop.dataset;
const root = (window.gradio_config?.root ?? location.href.replace(/[^/]*$/, "")).replace(/\/?$/, "/");
let chosen = null, sending = null, recorder = null;

function say(words, bad = false) {
  status.textContent = words;
  status.className = bad ? "nl-status nl-trouble" : "nl-status nl-faint";
  status.setAttribute("role", bad ? "alert" : "status");
}

function show(source) {
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  video.srcObject = null;
  if (source instanceof MediaStream) video.srcObject = source;
  else video.src = URL.createObjectURL(source);
  video.controls = !(source instanceof MediaStream);
  video.hidden = false;
  drop.classList.add("nl-chosen");
  find(".nl-zone strong").textContent = "Another video";
}

function choose(given) {
  if (!given) return;
  chosen = given;
  show(given);
  send();
}

function send() {
  sending?.abort();
  if (!chosen) return;
  const name = chosen.name;
  if (!chosen.size) return say(`${name} is empty (0 bytes).`, true);
  if (chosen.size > megabytes * 1e6)
    return say(`${name} has ${(chosen.size / 1e6).toFixed(1)} MB, and ${megabytes} MB are the most here.`, true);
  const request = sending = new XMLHttpRequest();
  request.open("POST", root + "clip");
  request.setRequestHeader("X-Clip", encodeURIComponent(name)); // which no other site may send
  request.upload.onprogress = ({ loaded, total }) => { bar.value = loaded / total; };
  request.onloadend = () => { bar.hidden = true; };
  request.onerror = () => say("The server cannot be reached; is it still running?", true);
  request.onload = () => {
    if (request.status !== 200) return say(`${name}: ${request.responseText}`, true);
    say("");
    props.value = request.responseText;
    trigger("submit");
  };
  bar.value = 0;
  bar.hidden = false;
  say(`Sending ${name} …`);
  request.send(chosen);
}

async function start() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
  } catch {
    return say("There is no camera here, or the browser may not use it.", true);
  }
  const kind = ["video/webm", "video/mp4"].find(MediaRecorder.isTypeSupported);
  const pieces = [], stop = () => recorder?.state === "recording" && recorder.stop();
  recorder = new MediaRecorder(stream, { mimeType: kind });
  recorder.ondataavailable = ({ data }) => pieces.push(data);
  recorder.onstop = () => {
    for (const track of stream.getTracks()) track.stop();
    record.textContent = "Record with the camera";
    record.classList.remove("nl-recording");
    const ending = kind.split("/")[1];
    choose(new File(pieces, `recording.${ending}`, { type: kind }));
  };
  show(stream);
  video.play();
  recorder.start(250);
  record.textContent = "Stop and ask";
  record.classList.add("nl-recording");
  say("Recording; at most 10 s.");
  setTimeout(stop, 1000 * Math.min(10, seconds));
}

file.onchange = () => { choose(file.files[0]); file.value = ""; };
record.onclick = () => recorder?.state === "recording" ? recorder.stop() : start();
example.onclick = async () => {
  const answer = await fetch(`${root}example?number=${Math.floor(1000 * Math.random())}`);
  if (!answer.ok) return say("There is no example.", true);
  choose(new File([await answer.blob()], "example.mp4", { type: "video/mp4" }));
};
for (const kind of ["dragenter", "dragover"])
  drop.addEventListener(kind, event => { event.preventDefault(); drop.classList.add("nl-over"); });
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("nl-over"));
drop.addEventListener("drop", event => { event.preventDefault(); choose(event.dataTransfer.files[0]); });
addEventListener("nl-again", send); // another network was chosen

// Tiny videos are shown as they are, in squares; and what the browser cannot play is no trouble.
video.onloadedmetadata = () => video.classList.toggle("nl-tiny", video.videoWidth < 128);
video.onerror = () => { if (video.src) video.hidden = true; };

// The timeline follows the video, and leads it.
video.ontimeupdate = () => {
  const time = document.querySelector(".nl-time");
  time?.style.setProperty("--nl-rows", time.querySelectorAll(".nl-row").length - 1);
  time?.style.setProperty("--nl-at", Math.min(1, video.currentTime / time.dataset.seconds));
};
document.addEventListener("click", event => {
  const lane = event.target.closest?.(".nl-time .nl-lane"), box = lane?.getBoundingClientRect();
  if (lane) video.currentTime = (event.clientX - box.left) / box.width * lane.closest(".nl-time").dataset.seconds;
});
// The explorer may say how high it is.
addEventListener("message", ({ data, source }) => {
  const frame = [...document.querySelectorAll(".nl-explorer")].find(f => f.contentWindow === source);
  if (frame && data?.height > 0) frame.style.height = `${Math.min(data.height, 4000)}px`;
});
